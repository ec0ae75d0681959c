//! The command of a set as lines that can be pasted into a shell in the source tree. Folders of the machine on which it was given are not in
//! a result: where one was, there is a variable of the shell.

use std::path::Path;

/// Where a repetition puts its result: the folder of the first one holds that.
const OUT: &str = "RESULTS";

/// The words of a command line without folders of this machine: the program's name alone, and for an absolute path the variable that
/// [`lines`] sets, named after its option.
pub fn without_folders(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for (place, word) in words.into_iter().enumerate() {
        let is_absolute = |text: &str| Path::new(text).is_absolute();
        let word = match word.split_once('=') {
            _ if place == 0 => {
                Path::new(&word).file_name().map_or(word.clone(), |name| name.to_string_lossy().into_owned())
            }
            Some((option, value)) if option.starts_with("--") && is_absolute(value) => {
                format!("{option}={}", variable(option))
            }
            _ if is_absolute(&word) => {
                let option = kept.last().filter(|last| last.starts_with("--") && !last.contains('='));
                variable(option.map_or("--folder", String::as_str))
            }
            _ => word,
        };
        kept.push(word);
    }
    kept
}

/// `$BROKER_BINARY` of `--broker-binary`.
fn variable(option: &str) -> String {
    format!("${}", option.trim_start_matches('-').replace('-', "_").to_uppercase())
}

fn variable_name(word: &str) -> Option<&str> {
    let name = word.strip_prefix('$')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_name.then_some(name)
}

/// A word as a shell reads it again.
fn quoted(word: &str) -> String {
    if let Some((option, value)) = word.split_once('=')
        && option.starts_with("--")
        && variable_name(value).is_some()
    {
        return format!("{option}=\"{value}\"");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+%@".contains(&byte);
    if variable_name(word).is_some() {
        format!("\"{word}\"")
    } else if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The command alone, in one line.
pub fn line(command: &[String], profile: &str) -> String {
    let mut words = Vec::new();
    let mut is_out = false;
    for (place, word) in command.iter().enumerate() {
        words.push(match word.as_str() {
            name if place == 0 && !name.contains('/') => format!("./target/{profile}/{}", quoted(name)),
            _ if is_out => OUT.to_owned(),
            word if word.starts_with("--out=") => format!("--out={OUT}"),
            word => quoted(word),
        });
        is_out = word == "--out";
    }
    words.join(" ")
}

/// The command, and before it what its variables are to be set to.
pub fn lines(command: &[String], profile: &str) -> String {
    let words = command.iter().map(|word| word.split_once('=').map_or(word.as_str(), |(_, value)| value));
    let mut names: Vec<&str> = words.filter_map(variable_name).filter(|name| *name != "OUT").collect();
    names.sort_unstable();
    names.dedup();
    let mut text = String::new();
    for name in names {
        let value = if name == "BROKER_BINARY" {
            "./target/release/ringmq".to_owned()
        } else {
            format!("./{}", name.to_lowercase())
        };
        text += &format!("{name}={value}  # a place of your machine\n");
    }
    text + &line(command, profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a command in a result shows no folder of the program and no absolute one, and all else that it was told. Method: paths and
    /// other words.
    #[test]
    fn commands_show_no_folders() {
        for program in ["/a/b/ringmq-bench", "target/release/ringmq-bench"] {
            let words =
                [program, "publish", "--out", "/a/set", "--store=/a/b", "--scale=0.4", "sub/set", "/", "--json", "/x"];
            let short = without_folders(words.map(str::to_owned));
            let wanted = [
                "ringmq-bench",
                "publish",
                "--out",
                "$OUT",
                "--store=$STORE",
                "--scale=0.4",
                "sub/set",
                "$FOLDER",
                "--json",
            ];
            assert_eq!(short[..9], wanted);
            assert!(!short.concat().contains("/a") && !short.concat().contains("/x"), "{short:?}");
        }
    }

    /// Goal: what the page shows can be pasted: a shell that reads it gets the words that were given, with places of its own where folders
    /// were left out. Method: words of all kinds through the text and a shell, which prints them one by one.
    #[test]
    fn a_shell_reads_the_same_words() {
        let given = [
            "/opt/x/ringmq-bench",
            "sweep",
            "steady-1k-10k",
            "--slo",
            "p99<=1ms,p999<=5ms",
            "--slo=e2e.p99<=2ms",
            "--out",
            "/tmp/set",
            "--store=/data/a b",
            "--broker-binary",
            "/opt/ringmq",
            "it's $HOME",
            "",
            "--out=old",
            "a;b",
        ];
        let text = lines(&without_folders(given.map(str::to_owned)), "release");
        assert!(!text.contains("/opt") && !text.contains("/tmp") && !text.contains("/data"), "{text}");
        let (settings, command) = text.rsplit_once('\n').unwrap();
        let script = format!("{settings}\nprintf '%s\\n' {command}\n");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let wanted = [
            "./target/release/ringmq-bench",
            "sweep",
            "steady-1k-10k",
            "--slo",
            "p99<=1ms,p999<=5ms",
            "--slo=e2e.p99<=2ms",
            "--out",
            "RESULTS",
            "--store=./store",
            "--broker-binary",
            "./target/release/ringmq",
            "it's $HOME",
            "",
            "--out=RESULTS",
            "a;b",
        ];
        assert_eq!(words.lines().collect::<Vec<_>>(), wanted, "{text}");
        assert_eq!(line(&["ringmq-bench".to_owned()], "debug"), "./target/debug/ringmq-bench");
    }
}
