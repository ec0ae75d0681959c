//! The same changes as a bash script, for those who want to read before they run. It keeps the same journal as the
//! direct way, does nothing on its own authority that the plan does not name, and has the undo as its second function.

use std::fmt::Write;
use std::path::Path;

use crate::catalogue::CardSetting;
use crate::journal::{FILE_MARK, HEADER, PATH};
use crate::plan::{Change, Plan, Target};
use crate::probe::card;
use crate::probe::system::FAKE_FOLDER;
use crate::report;

/// The script of a plan, for a host below `root`.
pub fn script(plan: &Plan, root: &Path) -> String {
    let root = if root == Path::new("/") { String::new() } else { root.display().to_string() };
    let mut changes = String::new();
    for line in &plan.lines {
        let Some(change) = &line.change else { continue };
        let proof = if line.unproven { " (unproven)" } else { "" };
        changes += &commented(&format!("{}{proof} Now: {}", line.why, change.old.replace('\t', " ")), "  ");
        let counterpart = change.counterpart.as_ref().map(Target::name).unwrap_or_default();
        let new = change.new.replace('\t', "\\t");
        let moved = change.moves.iter().map(Target::name);
        let words = [change.name.clone(), change.target.name(), new, counterpart].into_iter().chain(moved);
        changes += &call("change", words);
    }
    if changes.is_empty() {
        let takes_over = plan.is_whole && plan.targets().next().is_some();
        changes.push_str(match (plan.is_fulfilled(), takes_over) {
            (true, _) => "  lock; begin\n",
            (_, true) => "  if is_of_this_boot; then lock; begin; fi\n",
            _ => "  :\n",
        });
    } else {
        let moved: Vec<&Target> = plan.changes().flat_map(|change| &change.moves).collect();
        let may_move = |change: &&Change| moved.contains(&&change.target);
        let look = |change: &Change| format!("  look {}\n", quote(&change.target.name()));
        let mut looks = format!("  lock\n{}", plan.changes().map(look).collect::<String>());
        for change in plan.changes().filter(may_move) {
            let counterpart = change.counterpart.as_ref().map(Target::name).unwrap_or_default();
            let new = change.new.replace('\t', "\\t");
            looks += &call("may_move", [change.target.name(), change.name.clone(), new, counterpart]);
        }
        let mut others: Vec<&Target> = Vec::new();
        for target in moved {
            if !others.contains(&target) && plan.changes().all(|change| change.target != *target) {
                others.push(target);
                let _ = writeln!(looks, "  keep {}", quote(&target.name()));
                let _ = writeln!(changes, "  settle {}", quote(&target.name()));
            }
        }
        changes.insert_str(0, &looks);
    }
    // What another profile set is brought back by the tool alone: it knows the whole journal.
    let left = match plan.left_behind.len() {
        0 => String::new(),
        count => format!(
            "  say '{count} settings of another profile stay, which this one says nothing of:'\n  \
               say 'run `ringmq tune revert` first to bring them back'\n"
        ),
    };
    TEMPLATE
        .replace("@profile@", &plan.profile)
        .replace("@host@\n", &commented(&plan.host, ""))
        .replace("@root@", &quote(&root))
        .replace("@journal@", PATH)
        .replace("@header@", HEADER)
        .replace("@mark@", FILE_MARK)
        .replace("@fake@", FAKE_FOLDER)
        .replace("@card-get@", &card_lines(|setting| reading(setting).to_string()))
        .replace("@card-set@", &card_lines(|setting| card::command("\"$nic\"", setting, "\"$2\"")))
        .replace("@left@", &left)
        .replace("@changes@", &changes)
}

/// Columns that a line of a script may have, unless it is a single word.
const COLUMNS: usize = 100;

/// A comment in as many lines as it needs.
fn commented(text: &str, indent: &str) -> String {
    let lines = report::wrap(text, COLUMNS - indent.len() - 2);
    lines.iter().map(|line| format!("{indent}# {line}\n")).collect()
}

/// A call of a function with words that mean exactly these texts, continued where it would be too long.
fn call(function: &str, texts: impl IntoIterator<Item = String>) -> String {
    let (mut done, mut line) = (String::new(), format!("  {function}"));
    for text in texts {
        let word = quote(&text);
        // Two columns for the sign that it goes on.
        if line.chars().count() + 1 + word.chars().count() > COLUMNS - 2 {
            done += &format!("{line} \\\n");
            line = "     ".into();
        }
        line.push(' ');
        line += &word;
    }
    format!("{done}{line}\n")
}

/// A word of bash that means exactly this text.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn card_lines(line: impl Fn(CardSetting) -> String) -> String {
    CardSetting::ALL.into_iter().map(|setting| format!("    {}) {} ;;\n", setting.name(), line(setting))).collect()
}

/// How the ethtool program's output is read.
fn reading(setting: CardSetting) -> &'static str {
    match setting {
        CardSetting::CombinedChannels => "ethtool -l \"$nic\" | current Combined:",
        CardSetting::RxRing => "ethtool -g \"$nic\" | current RX:",
        CardSetting::TxRing => "ethtool -g \"$nic\" | current TX:",
        CardSetting::AdaptiveRx => "ethtool -c \"$nic\" | awk '/^Adaptive RX:/ {print $3}'",
        CardSetting::RxUsecs => "ethtool -c \"$nic\" | field rx-usecs:",
        CardSetting::Gro => "ethtool -k \"$nic\" | field generic-receive-offload:",
        CardSetting::Tso => "ethtool -k \"$nic\" | field tcp-segmentation-offload:",
        CardSetting::Gso => "ethtool -k \"$nic\" | field generic-segmentation-offload:",
        CardSetting::Lro => "ethtool -k \"$nic\" | field large-receive-offload:",
        CardSetting::Ntuple => "ethtool -k \"$nic\" | field ntuple-filters:",
        CardSetting::PauseRx => "ethtool -a \"$nic\" | field RX:",
        CardSetting::PauseTx => "ethtool -a \"$nic\" | field TX:",
        CardSetting::Eee => {
            "ethtool --show-eee \"$nic\" | awk '/EEE status:/ {print ($3 == \"enabled\") ? \"on\" : \"off\"}'"
        }
    }
}

const TEMPLATE: &str = r#"#!/usr/bin/env bash
# Profile @profile@, made by `ringmq tune plan --format script` for this host:
@host@
#
# Usage: bash SCRIPT [apply|revert]
# Exit code: 0 all as wanted, 1 something is not, 2 usage, 4 cannot run
#
# Old values go to the journal of `ringmq tune` before each change, so `ringmq tune revert` undoes
# this script, and `SCRIPT revert` undoes `ringmq tune apply`.
set -eu

root=@root@
journal="$root@journal@"
tab=$'\t'
not_as_wanted=0

say() { printf '%s\n' "$1" >&2; }

# What the ethtool program says: of a table the part about now, of a list one field.
current() { awk -v key="$1" '/^Current/ {now = 1} now && $1 == key {print $2}'; }
field() { awk -v key="$1" '$1 == key {print $2}'; }

card_get() { # NIC SETTING
  local nic=$1
  if [ -n "$root" ]; then cat "$root@fake@/cards/$nic/$2"; return; fi
  case $2 in
@card-get@    *) return 1 ;;
  esac
}

card_set() { # NIC VALUE SETTING
  local nic=$1
  if [ -n "$root" ]; then printf '%s\n' "$2" > "$root@fake@/cards/$nic/$3"; return; fi
  case $3 in
@card-set@    *) return 1 ;;
  esac
}

# The value of a target: a path, or card:NIC:SETTING. Of a choice the chosen word. Tabs become \t.
value_of() { # TARGET
  local text rest
  case $1 in
    card:*) rest=${1#card:}; text=$(card_get "${rest%:*}" "${rest##*:}") || return 1 ;;
    *) text=$(cat "$root$1") || return 1 ;;
  esac
  case $text in *\[*\]*) text=${text#*\[}; text=${text%%\]*} ;; esac
  printf '%s' "${text//"$tab"/\\t}"
}

# A device that was taken away, or an interrupt that has another number by now.
is_gone() { # TARGET
  local nic
  case $1 in
    card:*) nic=${1#card:}; [ ! -e "$root/sys/class/net/${nic%:*}" ] ;;
    *) [ ! -e "$root$1" ] ;;
  esac
}

write_value() { # TARGET VALUE
  local rest
  case $1 in
    card:*) rest=${1#card:}; card_set "${rest%:*}" "$2" "${rest##*:}" ;;
    *) printf '%s\n' "${2//\\t/"$tab"}" > "$root$1" ;;
  esac
}

# The values as the kernel means them: blanks are alike, and masks have no leading zeros.
plain() { # TARGET VALUE
  local text=${2//\\t/ }
  case $1 in
    *_cpus) text=${text//,/}; text=${text#"${text%%[!0]*}"}; printf '%s' "${text:-0}" ;;
    *) printf '%s' "$text" ;;
  esac
}

same() { # TARGET VALUE VALUE
  [ "$2" = "$3" ] || [ "$(plain "$1" "$2")" = "$(plain "$1" "$3")" ]
}

is_of_this_boot() { [ -e "$journal" ] && grep -qxF -- "boot$tab$(boot_id)" "$journal"; }

boot_id() { cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null || true; }

note() { # LINE
  printf '%s\n' "$1" >> "$journal"
  sync "$journal"
}

# Until this process ends no other one changes this host. The lock is the folder itself: no file is
# left behind.
busy() { say 'another `ringmq tune` or script of it is changing this host'; exit 4; }

lock() {
  local folder=${journal%/*} attempt
  command -v flock > /dev/null || { say 'this needs the program flock'; exit 4; }
  for attempt in 1 2 3 4 5 6 7 8; do
    mkdir -p "$folder"
    exec {lock_fd}< "$folder" || continue
    flock -n "$lock_fd" || busy
    if [ "/proc/$$/fd/$lock_fd" -ef "$folder" ]; then
      trap 'rmdir "${journal%/*}" 2>/dev/null || true' EXIT
      return 0
    fi
    exec {lock_fd}<&-
  done
  busy
}

begun=0
begin() {
  local boot kept='' profile=''
  [ "$begun" = 0 ] || return 0
  begun=1
  boot=$(boot_id)
  if [ -e "$journal" ] && [ -z "$(tail -c 1 "$journal")" ] \
    && grep -qxF -- "boot$tab$boot" "$journal"; then
    profile=$(grep "^profile$tab" "$journal" | tail -n 1) || true
    [ "$profile" = "profile${tab}@profile@" ] || note "profile${tab}@profile@"
    return 0
  fi
  if [ -e "$journal" ]; then
    if grep -qxF -- "boot$tab$boot" "$journal"; then
      [ -z "$(tail -c 1 "$journal")" ] || sed -i '$d' "$journal"
      kept=$(sed -n '3,$p' "$journal")
    else
      kept=$(grep "^made$tab" "$journal") || true
    fi
  fi
  printf '%s\nboot\t%s\n' '@header@' "$boot" > "$journal.new"
  [ -z "$kept" ] || printf '%s\n' "$kept" >> "$journal.new"
  profile=$(grep "^profile$tab" "$journal.new" | tail -n 1) || true
  if [ "$profile" != "profile${tab}@profile@" ]; then
    printf 'profile\t%s\n' '@profile@' >> "$journal.new"
  fi
  sync "$journal.new"
  mv "$journal.new" "$journal"
  sync "${journal%/*}"
}

# All old values before the first write: one write may move another value.
declare -A before=()
look() { # TARGET
  before[$1]=$(value_of "$1") || unset "before[$1]"
}

# What another write may move: its name, its new value and its counterpart, as for `change`.
declare -A names=() news=() counterparts=() noted=()
may_move() { # TARGET NAME NEW COUNTERPART
  names[$1]=$2; news[$1]=$3; counterparts[$1]=$4
}

# What another write may move although nothing here changes it gets the value that it has.
keep() { # TARGET
  look "$1"
  if [ -n "${before[$1]+known}" ]; then may_move "$1" "$1" "${before[$1]}" ''; fi
}

# Where the kernel refuses, it has no meaning beside the new value of the other.
settle() { # TARGET
  local now new=${news[$1]-}
  [ -n "${noted[$1]-}" ] && now=$(value_of "$1" 2> /dev/null) || return 0
  same "$1" "$now" "$new" || { write_value "$1" "$new" || true; } 2> /dev/null
  note "done$tab$1$tab$new$tab$(value_of "$1")"
}

# The old value goes to the journal once, before the first write that may change it.
note_set() { # NAME TARGET OLD NEW COUNTERPART
  local undo_target=$2 undo_value=$3 other
  [ -z "${noted[$2]-}" ] || return 0
  noted[$2]=1
  if [ -n "$5" ] && [ "$3" = 0 ] && other=$(value_of "$5") && [ "$other" != 0 ]; then
    undo_target=$5; undo_value=$other
  fi
  begin
  note "set$tab$1$tab$2$tab$3$tab$4$tab$undo_target$tab$undo_value"
}

is_known() { # TARGET NEW NOW
  is_of_this_boot && grep -qxF -- "done$tab$1$tab$2$tab$3" "$journal"
}

change() { # NAME TARGET NEW COUNTERPART [WHAT IT MOVES ...]
  local old now moved is_noted=${noted[$2]-}
  if ! now=$(value_of "$2"); then say "$1: cannot be read"; not_as_wanted=1; return 0; fi
  old=${before[$2]-$now}
  if [ -z "$is_noted" ] && same "$2" "$old" "$3" && same "$2" "$now" "$3"; then return 0; fi
  if is_known "$2" "$3" "$now"; then
    [ -z "$is_noted" ] || note "done$tab$2$tab$3$tab$now"
    same "$2" "$now" "$3" || { say "$1: the kernel keeps $now"; not_as_wanted=1; }
    return 0
  fi
  if [ -n "$is_noted" ] && same "$2" "$now" "$3"; then note "done$tab$2$tab$3$tab$now"; return 0; fi
  for moved in "${@:5}"; do
    [ -n "${names[$moved]-}" ] && [ -n "${before[$moved]+known}" ] || continue
    note_set "${names[$moved]}" "$moved" "${before[$moved]}" "${news[$moved]}" \
      "${counterparts[$moved]}"
  done
  note_set "$1" "$2" "$old" "$3" "$4"
  if ! write_value "$2" "$3"; then
    note "failed$tab$2"; say "$1: the kernel refused $3"; not_as_wanted=1; return 0
  fi
  now=$(value_of "$2")
  note "done$tab$2$tab$3$tab$now"
  if same "$2" "$now" "$3"; then [ "$old" = "$now" ] || say "$1: $old -> $now"
  else say "$1: wanted $3, the kernel has $now"; not_as_wanted=1; fi
}

apply() {
@left@@changes@}

bring_back() { # TARGET OLD UNDO-TARGET UNDO-VALUE
  write_value "$3" "$4" && same "$1" "$(value_of "$1")" "$2"
}

# Whether a place that is gone went with a value that stays: it may come back with it.
goes_with_kept() { # TARGET
  local line kind name target
  for line in "${kept[@]}"; do
    IFS=$tab read -r kind name target _ <<< "$line"
    if [ "$kind" = set ] && [ -e "$root$target" ]; then
      case $1 in "${target%/*}"/*/*) return 0 ;; esac
    fi
  done
  return 1
}

revert() {
  local -a lines=() kept=() ended=()
  local -A seen=() conflicts=()
  local index kind name target old new undo_target undo_value now at ending boot profile=''
  [ -e "$journal" ] || { say 'nothing to revert'; return 0; }
  lock
  boot=$(sed -n 's/^boot\t//p' "$journal" | head -n 1)
  [ -z "$(tail -c 1 "$journal")" ] || sed -i '$d' "$journal"
  mapfile -t lines < "$journal"
  # The values before the first write, or what was brought back: one write may move another value,
  # which then is not somebody else's doing.
  for index in "${!lines[@]}"; do
    IFS=$tab read -r kind name target now <<< "${lines[index]}"
    if [ "$kind" = set ] && [ "$boot" = "$(boot_id)" ] && [ -z "${seen[$target]+known}" ]; then
      seen[$target]=$(value_of "$target" 2> /dev/null) || unset "seen[$target]"
    fi
  done
  for ((index = ${#lines[@]} - 1; index >= 0; index--)); do
    IFS=$tab read -r kind name target old new undo_target undo_value <<< "${lines[index]}"
    case $kind in
      done | failed) ended+=("${lines[index]}") ;;
      profile) [ -n "$profile" ] || profile=${lines[index]} ;;
      made)
        if [ ! -e "$root$name" ]; then continue; fi
        case $name in */) rmdir "$root$name" 2>/dev/null || true; continue ;; esac
        if [ "$(head -n 1 "$root$name")" = '@mark@' ]; then rm "$root$name"
        else say "$name: somebody else made it; it stays"; kept+=("${lines[index]}"); fi ;;
      set)
        [ "$boot" = "$(boot_id)" ] || continue
        ending=''
        local place
        for place in "${!ended[@]}"; do
          case ${ended[place]} in
            "done$tab$target$tab"* | "failed$tab$target")
              ending=${ended[place]}; unset 'ended[place]'; break ;;
          esac
        done
        if is_gone "$target" && [ "$old" = "$new" ] && goes_with_kept "$target"; then
          :
        elif is_gone "$target"; then
          say "$name: gone"; continue
        elif ! now=$(value_of "$target"); then
          say "$name: cannot be read"
        elif same "$target" "$now" "$old"; then
          seen[$target]=$old; continue
        elif at=${seen[$target]-$now}
          [ -z "$ending" ] || same "$target" "$at" "$new" || same "$target" "$at" "$old" \
          || { [ "${ending%%"$tab"*}" = 'done' ] && same "$target" "$at" "${ending##*"$tab"}"; }
        then
          if bring_back "$target" "$old" "$undo_target" "$undo_value"; then
            say "$name: $now -> $old"; seen[$target]=$old; continue
          fi
          say "$name: the kernel did not take $old back"
        else
          say "$name: somebody changed it to $at; it stays"
          conflicts[$target]=$at
        fi
        case $ending in done*) kept+=("$ending") ;; esac
        kept+=("${lines[index]}") ;;
    esac
  done
  # A value that was back may have been moved when the next one was, as read_ahead_kb is when
  # add_random is written.
  if [ "$boot" = "$(boot_id)" ]; then
    local -A first=() held=()
    for index in "${!kept[@]}"; do
      IFS=$tab read -r kind name target now <<< "${kept[index]}"
      if [ "$kind" = set ]; then held[$target]=1; fi
    done
    for index in "${!lines[@]}"; do
      IFS=$tab read -r kind name target now <<< "${lines[index]}"
      if [ "$kind" = set ] && [ -z "${first[$target]-}" ]; then first[$target]=$index; fi
    done
    for ((index = ${#lines[@]} - 1; index >= 0; index--)); do
      IFS=$tab read -r kind name target old new undo_target undo_value <<< "${lines[index]}"
      [ "$kind" = set ] && [ "${first[$target]}" = "$index" ] || continue
      [ -z "${held[$target]-}" ] || continue
      if is_gone "$target"; then continue; fi
      if now=$(value_of "$target") && same "$target" "$now" "$old"; then continue; fi
      if bring_back "$target" "$old" "$undo_target" "$undo_value"; then continue; fi
      say "$name: the kernel did not take $old back"
      kept=("${lines[index]}" "${kept[@]}")
    done
    # Nor does what somebody else wrote move. It stays in the journal either way.
    for target in "${!conflicts[@]}"; do
      if now=$(value_of "$target") && ! same "$target" "$now" "${conflicts[$target]}"; then
        write_value "$target" "${conflicts[$target]}" || true
      fi
    done
  fi
  if [ "${#kept[@]}" = 0 ]; then
    rm "$journal"
    return 0
  fi
  not_as_wanted=1
  {
    printf '%s\nboot\t%s\n' '@header@' "$boot"
    [ -z "$profile" ] || printf '%s\n' "$profile"
    for ((index = ${#kept[@]} - 1; index >= 0; index--)); do printf '%s\n' "${kept[index]}"; done
  } > "$journal.new"
  sync "$journal.new"
  mv "$journal.new" "$journal"
}

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then say 'this needs root'; exit 4; fi
case ${1-apply} in
  apply) apply ;;
  revert) revert ;;
  *) say "usage: $0 [apply|revert]"; exit 2 ;;
esac
exit "$not_as_wanted"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        // Goal: no value can leave its quotation marks. Method: one that tries.
        assert_eq!(quote("a'b; reboot #"), "'a'\\''b; reboot #'");
    }
}
