# For EARs, whose payload is the input: affirming as a whole, with at least one submodule, and each of them affirming.
package policy

import future.keywords.every

default nv_match = false

nv_match {
	input["ear.status"] == "affirming"
	count(input.submods) > 0
	every submodule in input.submods {
		submodule["ear.status"] == "affirming"
	}
}
