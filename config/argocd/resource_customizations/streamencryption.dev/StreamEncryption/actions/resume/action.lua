-- Removes the annotation that the action suspend sets. It does not change spec.suspend, which belongs to Git.
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["streamencryption.dev/suspend"] = nil
end
return obj
