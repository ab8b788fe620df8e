-- The health of a StreamEncryption, by the conditions of its status. They follow kstatus.
-- Every reason, and which conditions it comes with: docs/conditions.md of the stream-encryption-operator; they are made in
-- its src/api/condition.rs. Needs only Lua's base library, so it runs from argocd-cm, too.

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
elseif annotations["streamencryption.dev/suspend"] == "true"
  or annotations["streamencryption.dev/suspend"] ~= nil and ready ~= nil and ready.reason == "Suspended" then
  -- the operator takes other words for true as well, and says so by the reason
  suspended_by = "the annotation streamencryption.dev/suspend"
end

-- Argo CD 3.6 and newer ask while a resource is being deleted, and show the deletionMessage; older ones do not ask.
if metadata.deletionTimestamp ~= nil then
  local told = "Being deleted. Encryption is turned off first, as deletionPolicy: Disable asks."
  if spec.deletionPolicy ~= "Disable" then
    told = "Being deleted. The stream in AWS stays as it is."
  elseif suspended_by ~= nil then
    told = "Being deleted, and suspended by " .. suspended_by .. ": resume it to let encryption be turned off."
  end
  return { status = "Progressing", deletionMessage = told }
end

local hs = { status = "Progressing", message = "Waiting for the operator to see this resource." }
if status.observedGeneration == nil or status.observedGeneration == -1 then
  return hs
end
if status.observedGeneration ~= metadata.generation then
  hs.message = "Waiting for the operator to see the change of the spec."
  return hs
end

if suspended_by ~= nil then
  hs.status = "Suspended"
  hs.message = "Suspended by " .. suspended_by .. ": the operator neither looks nor calls."
  if ready ~= nil and ready.reason == "Suspended" then
    hs.message = ready.message
  elseif ready ~= nil then
    hs.message = hs.message .. " What was told before: " .. ready.message
  end
  return hs
end

if ready == nil then
  return hs
end
hs.message = ready.message
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  hs.status = "Degraded" -- it goes no further until somebody changes something
elseif ready.status == "True" then
  hs.status = "Healthy"
elseif ready.reason == "Drifted" then
  hs.status = "Suspended" -- drift: Report: the operator was asked to tell and to do nothing, and a person is to decide
end
return hs
