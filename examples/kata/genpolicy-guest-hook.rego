# For the rules of Kata's genpolicy (rules.rego). The shipped CreateSandboxRequest demands an empty guest_hook_path. This one
# demands ours, so that a host can neither leave the hook out nor put another folder in its place. Put it in the place of
# the shipped rule, never beside it: of two rules with one name either is enough. The other conditions are the shipped ones
# of 4.x (allow_sandbox_storages is in the same file); keep those of your version. The one on storages matters here: a
# storage can be mounted over the hook.

package agent_policy

nvattest_hook_path := "/usr/share/oci/hooks"

CreateSandboxRequest if {
	input.guest_hook_path == nvattest_hook_path
	count(input.kernel_modules) == 0
	input.sandbox_pidns == false
	allow_sandbox_storages(input.storages)
}
