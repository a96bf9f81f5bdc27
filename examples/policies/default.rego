# What NVIDIA's tools demand without a policy file: at least one device, and for each device a good measurement result
# and chains that are valid and not revoked by answers made for this request.
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
	device.measres == "success"
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
