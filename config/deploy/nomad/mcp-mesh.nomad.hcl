# Written by `npx mesh render nomad --dir .` from the registry: change that, and render again.
# Each Nomad client needs a Consul agent at 127.0.0.1:8500, the Docker driver and, in its own configuration,
# `client { max_kill_timeout = "91s" }` or more: the default of 30 s would cut a drain short.
# Workers register themselves in Consul: there is no `service` block, which would do it a second time.

variable "worker_image" {
  default = "mcp-mesh-worker:latest"
}

variable "plugin_server_image" {
  default = "mcp-mesh-plugin-server:latest"
}

variable "kong_image" {
  default = "kong:3.9"
}

variable "config" {
  default = "/srv/mcp-mesh"
}

job "mcp-mesh" {
  datacenters = ["*"]
  type        = "service"

  group "gateway" {
    count = 1

    update {
      max_parallel     = 1
      health_check     = "task_states"
      min_healthy_time = "20s"
      auto_revert      = true
    }

    network {
      port "gateway" {
        static = 10010
      }
    }

    task "plugin-server" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image        = "${var.plugin_server_image}"
        args         = ["/alloc/data"]
        network_mode = "host"
        cap_drop     = ["all"]
        security_opt = ["no-new-privileges"]
        mounts       = [{
          type = "bind"
          source = "${var.config}/config"
          target = "/etc/mcp-mesh"
          readonly = true
        }]
      }

      env {
        MESH_ACCESS_POLICY             = "/etc/mcp-mesh/access.yaml"
        MESH_IDENTITY_PRIVATE_KEY_FILE = "/secrets/identity-private-key"
        MESH_ROOT_KEYS_FILE            = "/secrets/root-keys"
        MESH_REDIS_URL_FILE            = "/secrets/redis-url"
        MESH_GATEWAY_METRICS_PORT      = "10011"
        MESH_GATEWAY_METRICS_HOST      = "127.0.0.1"
        CONSUL_HTTP_ADDR               = "127.0.0.1:8500"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/gateway\" }}{{ index . \"identity_private_key\" }}{{ end }}"
        destination = "secrets/identity-private-key"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/gateway\" }}{{ index . \"root_keys\" }}{{ end }}"
        destination = "secrets/root-keys"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/gateway\" }}{{ index . \"redis_url\" }}{{ end }}"
        destination = "secrets/redis-url"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }

    task "kong" {
      driver       = "docker"
      kill_signal  = "SIGQUIT"
      kill_timeout = "90s"

      config {
        image        = "${var.kong_image}"
        network_mode = "host"
        group_add    = ["1000"]
        cap_drop     = ["all"]
        security_opt = ["no-new-privileges"]
        mounts       = [{
          type = "bind"
          source = "${var.config}/kong/kong.conf"
          target = "/etc/kong/kong.conf"
          readonly = true
        }, {
          type = "bind"
          source = "${var.config}/kong/kong.yml"
          target = "/etc/kong/kong.yml"
          readonly = true
        }]
      }

      env {
        KONG_PLUGINSERVER_MESH_SOCKET    = "/alloc/data/mesh.sock"
        KONG_PLUGINSERVER_MESH_QUERY_CMD = "cat /alloc/data/plugin.json"
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }

  group "worker-everything" {
    count = 3

    update {
      max_parallel     = 1
      health_check     = "task_states"
      min_healthy_time = "20s"
      auto_revert      = true
    }

    network {
      port "worker" {
      }
    }

    task "worker" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "91s"

      config {
        image           = "${var.worker_image}"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        mounts          = [{
          type = "bind"
          source = "${var.config}/config"
          target = "/app/config"
          readonly = true
        }, {
          type = "tmpfs"
          target = "/tmp"
        }]
      }

      env {
        WORKER_SERVICE                 = "everything"
        WORKER_PORT                    = "${NOMAD_PORT_worker}"
        MESH_REGISTRY                  = "/app/config/mcp-mesh-registry.yaml"
        MESH_IDENTITY_PUBLIC_KEYS_FILE = "/secrets/identity-public-keys"
        MESH_SERVICE_KEYS_FILE         = "/secrets/service-keys"
        MESH_REDIS_URL_FILE            = "/secrets/redis-url"
        MESH_DRAIN_DEADLINE_MS         = "76000"
        CONSUL_HTTP_ADDR               = "127.0.0.1:8500"
        MESH_ADVERTISE_ADDRESS         = "${NOMAD_IP_worker}"
        MESH_HOST                      = "${NOMAD_ALLOC_ID}"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/worker-everything\" }}{{ index . \"identity_public_keys\" }}{{ end }}"
        destination = "secrets/identity-public-keys"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/worker-everything\" }}{{ index . \"service_keys\" }}{{ end }}"
        destination = "secrets/service-keys"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/worker-everything\" }}{{ index . \"redis_url\" }}{{ end }}"
        destination = "secrets/redis-url"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      resources {
        cpu    = 500
        memory = 1280
      }
    }
  }

  group "worker-filesystem" {
    count = 2

    update {
      max_parallel     = 1
      health_check     = "task_states"
      min_healthy_time = "20s"
      auto_revert      = true
    }

    network {
      port "worker" {
      }
    }

    task "worker" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "91s"

      config {
        image           = "${var.worker_image}"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        mounts          = [{
          type = "bind"
          source = "${var.config}/config"
          target = "/app/config"
          readonly = true
        }, {
          type = "tmpfs"
          target = "/tmp"
        }]
      }

      env {
        WORKER_SERVICE                 = "filesystem"
        WORKER_PORT                    = "${NOMAD_PORT_worker}"
        MESH_REGISTRY                  = "/app/config/mcp-mesh-registry.yaml"
        MESH_IDENTITY_PUBLIC_KEYS_FILE = "/secrets/identity-public-keys"
        MESH_SERVICE_KEYS_FILE         = "/secrets/service-keys"
        MESH_REDIS_URL_FILE            = "/secrets/redis-url"
        MESH_DRAIN_DEADLINE_MS         = "76000"
        CONSUL_HTTP_ADDR               = "127.0.0.1:8500"
        MESH_ADVERTISE_ADDRESS         = "${NOMAD_IP_worker}"
        MESH_HOST                      = "${NOMAD_ALLOC_ID}"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/worker-filesystem\" }}{{ index . \"identity_public_keys\" }}{{ end }}"
        destination = "secrets/identity-public-keys"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/worker-filesystem\" }}{{ index . \"service_keys\" }}{{ end }}"
        destination = "secrets/service-keys"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/mcp-mesh/worker-filesystem\" }}{{ index . \"redis_url\" }}{{ end }}"
        destination = "secrets/redis-url"
        perms       = "0400"
        uid         = 1000
        gid         = 1000
      }

      resources {
        cpu    = 500
        memory = 1280
      }
    }
  }
}
