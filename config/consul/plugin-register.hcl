# Of gateways, beside plugin.hcl, only where a role of access.yaml says `mesh: [register]`: instances that others run are
# then registered by the gateway, in services whose names begin so. Each gets Consul's HTTP check, and nothing else.
service_prefix "mcp-" {
  policy = "write"
}
