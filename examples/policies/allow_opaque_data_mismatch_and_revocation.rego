# As default.rego, for claims 4.0: values of the opaque data of a GPU (minimum security versions) may miss, and signers of
# its reference manifests may have been revoked. Measurements have to match all the same.
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
	values_match(device)
	good_chain(device["x-nvidia-gpu-attestation-report-cert-chain"])
	manifest_chain(device["x-nvidia-gpu-driver-rim-cert-chain"])
	manifest_chain(device["x-nvidia-gpu-vbios-rim-cert-chain"])
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

values_match(device) {
	device.measres == "success"
}

values_match(device) {
	device.measres == "fail"
	device["x-nvidia-mismatch-measurement-records"] == null
	is_array(device["x-nvidia-mismatch-opaque-data-records"])
	count(device["x-nvidia-mismatch-opaque-data-records"]) > 0
}

manifest_chain(chain) {
	chain["x-nvidia-cert-status"] == "valid"
	{"good", "revoked"}[chain["x-nvidia-cert-ocsp-status"]]
	chain["x-nvidia-cert-ocsp-nonce-matches"] == true
	chain["x-nvidia-cert-ocsp-response-valid"] == true
}
