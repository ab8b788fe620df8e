-- The health of a StreamEncryption, from the conditions of its status. They follow kstatus.
-- All reasons and their conditions: docs/conditions.md of the stream-encryption-operator; the operator sets them in
-- src/api/condition.rs. This script needs only Lua's base library, so it also runs from argocd-cm.

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
local spec = obj.spec or {}
local status = obj.status or {}
local annotations = metadata.annotations or {}

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready

local suspended_by
if spec.suspend == true then
  suspended_by = "spec.suspend"
elseif suspends(annotations["streamencryption.dev/suspend"]) then
  suspended_by = "the annotation streamencryption.dev/suspend"
end

-- While a resource is being deleted, Argo CD 3.6 and newer run this script and show deletionMessage; older versions do not.
if metadata.deletionTimestamp ~= nil then
  local told = "Being deleted. Encryption is disabled first, as deletionPolicy: Disable requires."
  if spec.deletionPolicy ~= "Disable" then
    told = "Being deleted. The stream in AWS is not changed."
  elseif suspended_by ~= nil then
    told = "Being deleted, and suspended by " .. suspended_by .. ": resume it so that encryption can be disabled."
  end
  return { status = "Progressing", deletionMessage = told }
end

local hs = { status = "Progressing", message = "Waiting for the operator to reconcile this resource." }
if status.observedGeneration == nil or status.observedGeneration == -1 then
  return hs
end
if status.observedGeneration ~= metadata.generation then
  hs.message = "Waiting for the operator to reconcile the change of the spec."
  return hs
end

if suspended_by ~= nil then
  hs.status = "Suspended"
  hs.message = "Suspended by " .. suspended_by .. ": the operator neither describes nor changes the stream."
  if ready ~= nil and ready.reason == "Suspended" then
    hs.message = ready.message
  elseif ready ~= nil then
    hs.message = hs.message .. " Message of Ready: " .. ready.message
  end
  return hs
end

if ready == nil then
  return hs
end
if ready.reason == "Suspended" then
  hs.message = "Waiting for the operator to resume the reconciliation."
  return hs
end
hs.message = ready.message
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  hs.status = "Degraded" -- Progress requires a change to the spec, a policy, or the resource that conflicts.
elseif ready.status == "True" then
  hs.status = "Healthy"
elseif ready.reason == "Drifted" then
  hs.status = "Suspended" -- mode: Observe: the operator only reports, and a user decides.
end
return hs
