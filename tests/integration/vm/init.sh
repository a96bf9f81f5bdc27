#!/bin/busybox sh
# The guest's first process: mounts, modules, one network for the simulated driver, NVIDIA's devices in sysfs, the case.
export PATH=/bin

word() { # the value of a word of the kernel's command line
	for each in $(cat /proc/cmdline); do
		case $each in "$1="*) echo "${each#*=}" ;; esac
	done
}

if [ ! -e /image ]; then
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t devtmpfs dev /dev
	for module in $(cat /lib/modules.list); do insmod "/lib/modules/$module.ko"; done
	if [ "$(word t.root)" = squashfs ]; then
		until [ -b /dev/vda ]; do usleep 50000; done
		mount -t squashfs -o ro /dev/vda /newroot
		mount -t tmpfs tmpfs /newroot/case
		cp -a /case/. /newroot/case/
		for each in proc sys dev; do mount --move /$each /newroot/$each; done
		exec switch_root /newroot /init
	fi
fi
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount --bind /case/etc /etc/nvattest
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
relay nvattest-vm 10.0.2.2 "$(word t.driver)"

# What the PCI bus and the driver would show. The bus of this machine has no NVIDIA device to pass through.
plug() { # ADDRESS CLASS
	mkdir "/run/bus/$1"
	echo 0x10de >"/run/bus/$1/vendor"
	echo 0x2331 >"/run/bus/$1/device"
	echo "$2" >"/run/bus/$1/class"
}
load_driver() {
	rm -rf /run/modules/nvidia-old
	[ -d /run/modules/nvidia ] && mv /run/modules/nvidia /run/modules/nvidia-old
	mkdir /run/modules/nvidia
	cp /case/driver-version /run/modules/nvidia/version
}
mkdir /run/bus /run/modules /run/proc-driver /run/proc-driver/nvidia
echo "NVRM version: simulated" >/run/proc-driver/nvidia/version
load_driver
mount --bind /run/bus /sys/bus/pci/devices
mount --bind /run/modules /sys/module
mount --bind /run/proc-driver /proc/driver
index=0
while [ $index -lt "$(word t.gpus)" ]; do
	index=$((index + 1))
	plug "0000:0$index:00.0" 0x030200
done
index=0
while [ $index -lt "$(word t.switches)" ]; do
	index=$((index + 1))
	plug "0000:4$index:00.0" 0x068000
done

hook=/usr/share/oci/hooks/prestart/nvattest-hook
. /lib/results.sh
echo "T case begins"
. /case/run.sh
echo "T case ends"
poweroff -f
