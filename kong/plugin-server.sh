#!/bin/sh
# Kong's plugin server beside a Kong that runs elsewhere: in FOLDER, which both see, it leaves plugin.json, what Kong's
# query command prints, and then the socket. Both are for the folder's owner and group, and for nobody else.
#   plugin-server.sh FOLDER
set -eu
umask 0007
here=$(dirname "$0")
folder=$1

node "$here/server.cjs" --plugins-directory "$here/plugins" --dump-all-plugins >"$folder/plugin.json.new"
mv "$folder/plugin.json.new" "$folder/plugin.json"
# exec: signals are for the server itself.
exec node "$here/server.cjs" --plugins-directory "$here/plugins" --kong-prefix "$folder" --sock-name mesh.sock
