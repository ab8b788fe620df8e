-- Sets an annotation that is not in Git. A change of spec.suspend would differ from Git, and self-heal would revert it.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["streamencryption.dev/suspend"] = "true"
return obj
