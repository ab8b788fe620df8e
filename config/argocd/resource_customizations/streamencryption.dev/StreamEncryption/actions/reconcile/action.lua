-- Another value of this annotation asks for a look and a try now, within the budget of calls.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["streamencryption.dev/retry"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
