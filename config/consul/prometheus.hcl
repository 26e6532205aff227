# Of Prometheus, which looks the workers up.
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
# It asks the agent for its datacenter.
agent_prefix "" {
  policy = "read"
}
