-- The available actions. A resource that is suspended in Git must be resumed in Git.
local metadata = obj.metadata or {}
local annotations = metadata.annotations or {}
local by_git = obj.spec ~= nil and obj.spec.suspend == true
local by_annotation = annotations["streamencryption.dev/suspend"] == "true"
if annotations["streamencryption.dev/suspend"] ~= nil then
  -- The operator accepts other values as true, too; the reason shows it.
  for _, condition in ipairs((obj.status or {}).conditions or {}) do
    by_annotation = by_annotation or condition.type == "Ready" and condition.reason == "Suspended"
  end
end
local suspended = by_git or by_annotation
local deleting = metadata.deletionTimestamp ~= nil

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
  ["displayName"] = "Resume",
  ["iconClass"] = "fa fa-fw fa-play-circle",
}
return actions
