#!/bin/sh
# What the guide for bare metal says, on a machine that systemd has booted: runs inside, started by
# a unit of machine_test.py, which reads what it prints. The last line says how far it came.
set -eux
exec >/trial.log 2>&1
trap 'systemctl --no-pager status "autosp-*"; systemctl poweroff' EXIT

systemctl enable --now autosp-coordinator autosp-agent
server=$(sed -n 's/^LISTEN=//p' /etc/autosp/coordinator.env)
for _ in $(seq 60); do
  if autosp-cli --server "$server" nodes | grep ' ready '; then break; fi
  sleep 1
done
AUTOSP_SERVER=$server autosp-smoke 2
echo "step: trained"

for service in coordinator agent; do
  pid=$(systemctl show --property MainPID --value autosp-$service)
  [ "$(stat -c %U "/proc/$pid")" = autosp ]
done
echo "step: runs as its own user"

systemctl restart autosp-coordinator
for _ in $(seq 60); do
  if autosp-cli --server "$server" list | grep succeeded; then break; fi
  sleep 1
done
autosp-cli --server "$server" list | grep succeeded
echo "step: the job is there after a restart"

systemctl kill --signal KILL autosp-agent
sleep 5
systemctl is-active autosp-agent
echo "step: the agent comes back"

apt-get purge -y -qq 'autosp-*'
for unit in coordinator agent; do
  if systemctl is-active autosp-$unit; then exit 1; fi
done
if ls -d /usr/bin/autosp-* /usr/lib/autosp; then exit 1; fi
ls -d /var/lib/autosp-coordinator
echo "step: removed, and the state is kept"
