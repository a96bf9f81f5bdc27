# What a case shows of the guest to the test, on the other side of the console. Sourced, by init and by what an agent runs.
show() { # a file, for the test on the other side of the console
	[ -f "$1" ] || { echo "T file $1 absent"; return; }
	echo "T file $1 begins"
	base64 "$1"
	echo "T file $1 ends"
}
results() {
	for each in state.json token.json; do show /run/nvattest/$each; done
	dmesg | grep -E 'nvattest-hook|kata-agent' | sed 's/^/T kernel /'
}
