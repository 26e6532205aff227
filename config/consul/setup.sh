#!/bin/sh
# Gives Consul the policies of this folder, and a token for each of them. Done again, it brings them up to date.
#   CONSUL_HTTP_ADDR=… CONSUL_HTTP_TOKEN_FILE=<management token> setup.sh SECRETS
# SECRETS is what `mesh render secrets` made: the tokens are those in <SECRETS>/<whose>/consul-token.
set -eu
here=$(dirname "$0")
secrets=$1

policy() {
  if consul acl policy read -name "$1" >/dev/null 2>&1; then action=update; else action=create; fi
  consul acl policy "$action" -name "$1" -rules "@$2" >/dev/null
}

for file in "$here"/*.hcl; do
  name=$(basename "$file" .hcl)
  case $name in
    # The agents' own, and what an operator adds by hand.
    acl | plugin-register) continue ;;
    plugin) whose=gateway ;;
    *) whose=$name ;;
  esac
  policy "mcp-mesh-$name" "$file"
  token=$(cat "$secrets/$whose/consul-token")
  # The file variable goes before the other one.
  if ! env -u CONSUL_HTTP_TOKEN_FILE CONSUL_HTTP_TOKEN="$token" consul acl token read -self >/dev/null 2>&1; then
    consul acl token create -description "mcp-mesh $whose" -policy-name "mcp-mesh-$name" -secret "$token" >/dev/null
  fi
  echo "$whose: mcp-mesh-$name"
done
