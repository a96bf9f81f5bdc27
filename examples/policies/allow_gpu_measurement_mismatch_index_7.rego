# As default.rego, but measurement 7 of a GPU may differ. A failure without a record of what differs is not accepted;
# NVIDIA's example accepts it, because "every record is about 7" holds for no records.
package policy

import future.keywords.every

default nv_match = false

nv_match {
	count(input) > 0
	every device in input {
		acceptable(device)
	}
}

acceptable(device) {
	device["x-nvidia-device-type"] == "gpu"
	measured(device)
	good_chain(device["x-nvidia-gpu-attestation-report-cert-chain"])
	good_chain(device["x-nvidia-gpu-driver-rim-cert-chain"])
	good_chain(device["x-nvidia-gpu-vbios-rim-cert-chain"])
}

acceptable(device) {
	device["x-nvidia-device-type"] == "nvswitch"
	device.measres == "success"
	good_chain(device["x-nvidia-switch-attestation-report-cert-chain"])
	good_chain(device["x-nvidia-switch-bios-rim-cert-chain"])
}

good_chain(chain) {
	chain["x-nvidia-cert-status"] == "valid"
	chain["x-nvidia-cert-ocsp-status"] == "good"
	chain["x-nvidia-cert-ocsp-nonce-matches"] == true
	chain["x-nvidia-cert-ocsp-response-valid"] == true
}

measured(device) {
	device.measres == "success"
}

measured(device) {
	device.measres == "fail"
	is_array(device["x-nvidia-mismatch-measurement-records"])
	count(device["x-nvidia-mismatch-measurement-records"]) > 0
	every record in device["x-nvidia-mismatch-measurement-records"] {
		record.index == 7
	}
}
