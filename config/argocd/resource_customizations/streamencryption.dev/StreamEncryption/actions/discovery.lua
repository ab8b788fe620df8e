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
local deleting_with_finalizer = false
for _, finalizer in ipairs(metadata.finalizers or {}) do
  if deleting and finalizer == "streamencryption.dev/disable-encryption" then
    deleting_with_finalizer = true
  end
end
-- The operator disables encryption when it continues the deletion. Without its finalizer, it leaves the stream as it is.
local disables = deleting_with_finalizer and obj.spec ~= nil and obj.spec.deletionPolicy == "Disable"
local effect = disables and ", which disables encryption" or ""

local actions = {}
actions["reconcile"] = {
  ["disabled"] = suspended,
  ["displayName"] = "Describe and retry now" .. effect,
  ["iconClass"] = "fa fa-fw fa-sync",
}
actions["suspend"] = {
  ["disabled"] = suspended or deleting,
  ["displayName"] = "Suspend",
  ["iconClass"] = "fa fa-fw fa-pause-circle",
}
actions["resume"] = {
  ["disabled"] = by_git or not suspended,
  ["displayName"] = "Resume" .. effect,
  ["iconClass"] = "fa fa-fw fa-play-circle",
}
return actions
