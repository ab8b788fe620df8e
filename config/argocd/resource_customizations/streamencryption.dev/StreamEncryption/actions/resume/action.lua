-- Takes away what the action suspend set. spec.suspend is Git's.
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["streamencryption.dev/suspend"] = nil
end
return obj
