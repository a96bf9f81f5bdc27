# For EARs, whose payload is the input: at least one submodule, each of them affirming, and so the whole where it has a
# status of its own. EARs of nvattest and of Trustee say "ear.status" and have none for the whole; NVIDIA's "ear_status".
package policy

import future.keywords.every

default nv_match = false

nv_match {
	count(input.submods) > 0
	every submodule in input.submods {
		status(submodule) == "affirming"
	}
	not other_as_a_whole
}

other_as_a_whole {
	status(input) != "affirming"
}

status(item) = item["ear.status"]

status(item) = item.ear_status
