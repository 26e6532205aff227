# For every Consul server and agent: nobody may do anything without a token. A server takes the first token, that of
# whoever makes the others (setup.sh), from initial_management; agents need one of their own to keep their node.
#   consul agent -config-file config/consul/acl.hcl -hcl 'acl { tokens { initial_management = "…" agent = "…" } }'
acl {
  enabled                  = true
  default_policy           = "deny"
  down_policy              = "extend-cache"
  enable_token_persistence = true
}
