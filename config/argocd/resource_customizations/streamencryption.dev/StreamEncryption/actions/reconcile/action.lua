-- A new value of this annotation requests a Describe and a retry now, within the limit of encryption calls.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["streamencryption.dev/retry"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
