# For the rules of Kata's genpolicy (rules.rego). The shipped CreateSandboxRequest demands an empty guest_hook_path. This one
# demands ours, so that a host can neither leave the hook out nor put another folder in its place. Replace the shipped
# rule by it and keep its other conditions as they are in your version.

package agent_policy

nvattest_hook_path := "/usr/share/oci/hooks"

CreateSandboxRequest if {
	input.guest_hook_path == nvattest_hook_path
	count(input.kernel_modules) == 0
}
