#!/bin/sh
# A step of a guest's own init, after the driver is loaded and before kata-agent: attest, then start the agent.
#
#   init-step.sh AGENT [ARGUMENT ...]       the path of the real agent; NVATTEST_REQUIRE=yes ends the guest on a failure
#
# Only where a shell is: a guest of Kata's rootfs builder, or one of your own. NVIDIA's guest has none, and no step before
# the agent either: put the native agent-step.c there. Never put this file at /usr/bin/kata-agent and name that path: it would
# call itself for ever, and refuses to.
#
# The GPUs are not ready unless the attestation succeeded, so that starting the agent in any case is safe too; ending the
# guest is for those who want a pod that fails at once.
#
# The agent sets up the guest's network, so there is none yet: the image brings a bundle, and its configuration says
# network = false under [collateral], or this step waits for the network until its budget is over.
set -u

# Where the guest layer puts the program.
hook=/usr/share/oci/hooks/prestart/nvattest-hook

if [ "$#" = 0 ] || [ ! -x "$1" ] || [ "$1" -ef "$0" ]; then
	echo "init-step.sh: name the real agent, a program that is not this file" >&2
	exit 2
fi

# Before the first NVML client: without persistence mode a confidential GPU may tear down when its first client ends.
if command -v nvidia-persistenced >/dev/null 2>&1; then
	nvidia-persistenced
fi

status=0
"$hook" --stage init || status=$?
if [ "$status" != 0 ]; then
	echo "nvattest-hook ended with $status; nvattest-hook status says what the GPUs are" >&2
	[ "${NVATTEST_REQUIRE:-no}" = yes ] && exit "$status"
fi
exec "$@"
