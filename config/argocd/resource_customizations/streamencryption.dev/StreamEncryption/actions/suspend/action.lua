-- By an annotation, which Git does not have: spec.suspend would differ from Git, and be healed away.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["streamencryption.dev/suspend"] = "true"
return obj
