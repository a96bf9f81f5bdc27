# For the rules of Kata's genpolicy (rules.rego; this is of 4.1.0, write it again from those of your release). The shipped
# CreateSandboxRequest demands an empty guest_hook_path. This one demands ours, so that a host can neither leave the hook out
# nor put another folder in its place. Put it in the place of the shipped rule, never beside it: of two rules with one name
# either is enough. The other conditions are the shipped ones (allow_sandbox_storages is in the same file). The one on
# storages matters here: a storage can be mounted over the hook. Rules before 4.1.0 let one be mounted anywhere
# (GHSA-fmg6-v47x-52wr).

package agent_policy

# Part of rules.rego already; the agent's engine reads Rego v0, which needs it.
import future.keywords.if

# The one that the runtime's configuration has. In an extension image:
#   "/run/kata-extensions/nvattest/usr/share/oci/hooks"
nvattest_hook_path := "/usr/share/oci/hooks"

CreateSandboxRequest if {
	input.guest_hook_path == nvattest_hook_path
	count(input.kernel_modules) == 0
	input.sandbox_pidns == false
	allow_sandbox_storages(input.storages)
}
