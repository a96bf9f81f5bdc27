#!/bin/sh
# A step of a guest's own init, after the driver is loaded and before kata-agent: attest, then start the agent.
# The GPUs are not ready unless this succeeded, so that starting the agent in any case is safe too; ending the guest is
# for those who want a pod that fails at once.
set -u

# Where the guest layer puts the program.
hook=/usr/share/oci/hooks/prestart/nvattest-hook

# Before the first NVML client: without persistence mode a confidential GPU may tear down when its first client ends.
if command -v nvidia-persistenced >/dev/null 2>&1; then
	nvidia-persistenced
fi

status=0
"$hook" --stage init || status=$?
[ "$status" = 0 ] && exec /usr/bin/kata-agent
echo "nvattest-hook ended with $status; the GPUs stay not ready" >&2
[ "${NVATTEST_REQUIRE:-no}" = yes ] && exit "$status"
exec /usr/bin/kata-agent
