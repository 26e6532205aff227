# Written by `npx mesh render consul --dir .` from the registry: change that, and render again.
# Of gateways: they only read.
service_prefix "mcp-" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
key_prefix "mcp-mesh/services/" {
  policy = "read"
}
