# Every device is an NVSwitch, booted securely and not open to debugging; nothing else is asked, so use it only beside the
# appraisal, never instead of it. NVIDIA's example also accepts an empty array; this one does not.
package policy

import future.keywords.every

default nv_match = false

nv_match {
	count(input) > 0
	every device in input {
		device["x-nvidia-device-type"] == "nvswitch"
		device.secboot == true
		device.dbgstat == "disabled"
	}
}
