# Written by `npx mesh render consul --dir .` from the registry: change that, and render again.
# Of the workers of "filesystem": their own entries, and nobody else's.
service "mcp-filesystem" {
  policy = "write"
}
node_prefix "" {
  policy = "read"
}
key "mcp-mesh/services/filesystem" {
  policy = "write"
}
