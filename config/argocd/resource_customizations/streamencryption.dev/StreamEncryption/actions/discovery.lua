-- The available actions. A resource that is suspended in Git must be resumed in Git.

-- Returns whether the operator treats a value of the annotation streamencryption.dev/suspend as true: each value does,
-- except for an empty one and these four, in upper or lower case. Lua's base library cannot change the case of a text,
-- but its tonumber ignores case, and in base 36 the letters are digits.
local function suspends(value)
  if value == nil or value == "" then
    return false
  end
  for _, word in ipairs({ "false", "no", "off", "0" }) do
    if tonumber(value, 36) == tonumber(word, 36) then
      return false
    end
  end
  return true
end

local metadata = obj.metadata or {}
local annotations = metadata.annotations or {}
local by_git = obj.spec ~= nil and obj.spec.suspend == true
local suspended = by_git or suspends(annotations["streamencryption.dev/suspend"])
local deleting = metadata.deletionTimestamp ~= nil
local disables = deleting and obj.spec ~= nil and obj.spec.deletionPolicy == "Disable"

local actions = {}
actions["reconcile"] = {
  ["disabled"] = suspended,
  ["displayName"] = "Describe and retry now",
  ["iconClass"] = "fa fa-fw fa-sync",
}
actions["suspend"] = {
  ["disabled"] = suspended or deleting,
  ["displayName"] = "Suspend",
  ["iconClass"] = "fa fa-fw fa-pause-circle",
}
actions["resume"] = {
  ["disabled"] = by_git or not suspended,
  ["displayName"] = disables and "Resume, which disables encryption" or "Resume",
  ["iconClass"] = "fa fa-fw fa-play-circle",
}
return actions
