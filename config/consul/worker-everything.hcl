# Written by `npx mesh render consul --dir .` from the registry: change that, and render again.
# Of the workers of "everything": their own entries, and nobody else's.
service "mcp-everything" {
  policy = "write"
}
node_prefix "" {
  policy = "read"
}
key "mcp-mesh/services/everything" {
  policy = "write"
}
