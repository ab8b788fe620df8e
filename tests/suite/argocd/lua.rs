//! Runs Lua as Argo CD runs the scripts in argocd-cm: Lua 5.1 with the base and table libraries, and with
//! only `date` and `time` of `os`, which a script has to `require`. Argo CD's own runner is
//! `util/lua/lua.go`; values are converted here as they are there.

use jiff::Timestamp;
use mlua::{Lua, LuaOptions, StdLib, Table, Value as LuaValue};
use serde_json::{Map, Value};

/// Flags of `os.date` that Argo CD supports and that mean the same everywhere.
const DATE_FLAGS: &str = "YmdHMSXF";

/// Returns the result of a script for an object, which the script finds in `obj`.
pub(super) fn run(script: &str, object: &Value) -> Result<Value, String> {
    evaluate(script, object).map_err(|error| error.to_string())?
}

fn evaluate(script: &str, object: &Value) -> mlua::Result<Result<Value, String>> {
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default())?;
    let globals = lua.globals();
    // The base library of Lua 5.1 contains it; Argo CD's does not.
    globals.set("coroutine", LuaValue::Nil)?;
    let os = lua.create_table()?;
    os.set("date", lua.create_function(|_, format: String| date(&format).map_err(mlua::Error::runtime))?)?;
    os.set("time", lua.create_function(|_, ()| Ok(Timestamp::now().as_second()))?)?;
    let require = lua.create_function(move |_, name: String| match name.as_str() {
        "os" => Ok(os.clone()),
        _ => Err(mlua::Error::runtime(format!("there is no module {name}"))),
    })?;
    globals.set("require", require)?;
    globals.set("obj", to_lua(&lua, object)?)?;
    lua.load(script).into_function()?.call::<LuaValue>(()).map(|value| to_json(&value))
}

fn date(format: &str) -> Result<String, String> {
    let format = format.strip_prefix('!').ok_or("local time is not supported: begin the format with !")?;
    let mut flags = format.split('%').skip(1);
    match flags.find(|flag| !flag.starts_with(|c| DATE_FLAGS.contains(c))) {
        Some(flag) => Err(format!("not every Argo CD knows %{flag}")),
        None => Ok(Timestamp::now().strftime(&format.replace("%X", "%H:%M:%S")).to_string()),
    }
}

fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Null => LuaValue::Nil,
        Value::Bool(value) => LuaValue::Boolean(*value),
        Value::Number(number) => LuaValue::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Array(items) => {
            let table = lua.create_table()?;
            for item in items {
                table.raw_push(to_lua(lua, item)?)?;
            }
            LuaValue::Table(table)
        }
        Value::Object(members) => {
            let table = lua.create_table()?;
            for (name, member) in members {
                table.raw_set(name.as_str(), to_lua(lua, member)?)?;
            }
            LuaValue::Table(table)
        }
    })
}

/// Converts a value to JSON. An empty table becomes an empty list, as in Argo CD.
fn to_json(value: &LuaValue) -> Result<Value, String> {
    match value {
        LuaValue::Nil => Ok(Value::Null),
        LuaValue::Boolean(value) => Ok(Value::Bool(*value)),
        LuaValue::Integer(number) => Ok(Value::from(*number)),
        LuaValue::Number(number) => Ok(Value::from(*number)),
        LuaValue::String(text) => Ok(Value::from(text.to_string_lossy())),
        LuaValue::Table(table) => table_to_json(table),
        other => Err(format!("a {} is no JSON", other.type_name())),
    }
}

fn table_to_json(table: &Table) -> Result<Value, String> {
    let pairs = table.pairs::<LuaValue, LuaValue>();
    let pairs: Vec<_> = pairs.collect::<mlua::Result<_>>().map_err(|error| error.to_string())?;
    if pairs.len() == table.raw_len() {
        return pairs.iter().map(|(_, item)| to_json(item)).collect::<Result<Vec<_>, _>>().map(Value::from);
    }
    let mut members = Map::new();
    for (name, member) in &pairs {
        let LuaValue::String(name) = name else {
            return Err("a table is a list or has names only".to_owned());
        };
        members.insert(name.to_string_lossy(), to_json(member)?);
    }
    Ok(Value::Object(members))
}

/// Replaces empty lists by empty objects where the object had empty objects before it went through Lua, as
/// Argo CD does.
pub(super) fn mend_empty_objects(after: &mut Value, before: &Value) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (name, member) in after {
                mend_empty_objects(member, before.get(name).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            for (member, before) in after.iter_mut().zip(before) {
                mend_empty_objects(member, before);
            }
        }
        (after @ Value::Array(_), Value::Object(_)) if after.as_array().is_some_and(Vec::is_empty) => {
            *after = Value::Object(Map::new());
        }
        _ => {}
    }
}
