//! Requests of tools about subscription groups: create and change (200, 225), delete (207), show (201, 352).
//! Source: AdminBrokerProcessor.

use std::collections::BTreeMap;

use ringmq_protocol::bodies::{JsonBody, SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupWrapper};
use ringmq_protocol::codes::response;

use super::topic_requests::Page;
use super::{Answer, Control, Effect, Handled, Refusal, Request, body, names, success};

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200). Without a body it does nothing.
pub(crate) fn update(control: &mut Control, request: &mut Request<'_>) -> Handled {
    if let Some(body) = &request.command.body {
        let config = SubscriptionGroupConfig::decode(body)?;
        control.update_groups(vec![config], request)?;
    }
    Ok(Answer::Now(success()))
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225). All or nothing.
pub(crate) fn update_list(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let list = SubscriptionGroupList::decode(body(request.command)?)?.group_config_list;
    control.update_groups(list, request)?;
    Ok(Answer::Now(success()))
}

/// DELETE_SUBSCRIPTIONGROUP (207). Succeeds whether or not the group exists.
pub(crate) fn delete(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("groupName")?;
    control.stale_group(group);
    if control.groups.remove(group, request.now.wall_ms) {
        request.effects.push(Effect::GroupsChanged);
    }
    if request.command.optional_bool("cleanOffset").unwrap_or(false) {
        request.effects.push(Effect::ForgetOffsets { group: group.to_owned() });
    }
    Ok(Answer::Now(success()))
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201), whole or one page of it.
pub(crate) fn all(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let groups = control.groups.sorted();
    let page = Page::of(request.command, "groupSeq", "maxGroupNum", control.groups.version())?;
    let table: BTreeMap<String, SubscriptionGroupConfig> =
        page.cut(groups.iter()).map(|(name, config)| (name.clone(), (**config).clone())).collect();
    let forbidden = control.groups.forbidden_table().iter().filter(|(group, _)| table.contains_key(*group));
    let wrapper = SubscriptionGroupWrapper {
        data_version: control.groups.version().clone(),
        forbidden_table: forbidden.map(|(group, topics)| (group.clone(), topics.clone())).collect(),
        subscription_group_table: table,
    };
    Ok(Answer::Now(success().with_ext("totalGroupNum", groups.len()).with_body(wrapper.encode())))
}

/// GET_SUBSCRIPTIONGROUP_CONFIG (352). Creates the group if that is allowed, as any other mention of it does.
pub(crate) fn one(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("group")?;
    let missing = || Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, "No group in this broker");
    control.ensure_group(group, request.now.wall_ms, request.effects).map_err(|_| missing())?;
    let config = control.groups.get(group).ok_or_else(missing)?;
    Ok(Answer::Now(success().with_body(config.encode())))
}

impl Control {
    fn update_groups(&mut self, list: Vec<SubscriptionGroupConfig>, request: &mut Request<'_>) -> Result<(), Refusal> {
        for config in &list {
            // RocketMQ takes any name here. The name becomes that of folders, so a new one must be one that can; but a group that is
            // there, from a store of RocketMQ, can be changed whatever its name is.
            if !self.groups.contains(&config.group_name) {
                names::check_group(&config.group_name)?;
            }
            // No attribute of groups is defined, so that any change of one is refused.
            if let Some(signed) = config.attributes.keys().next() {
                let key: String = signed.chars().skip(1).collect();
                return Err(Refusal::new(response::SYSTEM_ERROR, format!("unsupported key: {key}")));
            }
        }
        let created: std::collections::BTreeSet<&str> = list.iter().map(|config| config.group_name.as_str()).collect();
        let created = created.into_iter().filter(|name| !self.groups.contains(name)).count();
        self.check_room_for_groups(created, response::SYSTEM_ERROR)?;
        for mut config in list {
            if let Some(existing) = self.groups.get(&config.group_name) {
                config.attributes.clone_from(&existing.attributes);
                let known: BTreeMap<_, _> = existing.unknown.clone();
                let wanted = std::mem::replace(&mut config.unknown, known);
                config.unknown.extend(wanted);
            }
            self.put_group(config, request.now.wall_ms, request.effects);
        }
        Ok(())
    }
}
