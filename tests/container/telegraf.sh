# What Telegraf's own package does to a host, but for its program and its unit.
getent group telegraf >/dev/null || groupadd -r telegraf
id telegraf >/dev/null 2>&1 || useradd -r -M telegraf -s /bin/false -d /etc/telegraf -g telegraf
mkdir -p /etc/telegraf/telegraf.d /var/lib/telegraf
chown telegraf:telegraf /var/lib/telegraf
# Gathers go to a file, and come each second.
cat >/etc/telegraf/telegraf.conf <<'END'
[agent]
  interval = "1s"
  flush_interval = "1s"
  precision = "1ns"
  omit_hostname = true
[[outputs.file]]
  files = ["/var/lib/telegraf/metrics"]
  data_format = "influx"
END
