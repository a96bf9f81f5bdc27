/* A program in front of kata-agent for guests without a shell, such as NVIDIA's: attest, then become the agent.
 *
 * In an image of your own, move the agent and put this in its place; NVRC starts /usr/bin/kata-agent as process 1:
 *
 *     mv ROOT/usr/bin/kata-agent ROOT/usr/bin/kata-agent.real
 *     cc -Os -s -static -Wall -Wextra -o ROOT/usr/bin/kata-agent agent-step.c
 *
 * The agent gets the same arguments and the same environment. There is no network yet, so the image needs a bundle. The
 * GPUs are not ready unless the attestation succeeded; with -DREQUIRE the agent is not started without it, and process 1
 * powers the guest off. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AGENT
#define AGENT "/usr/bin/kata-agent.real"
#endif
#ifndef HOOK
#define HOOK "/usr/share/oci/hooks/prestart/nvattest-hook"
#endif

/* Process 1 must not exec itself for ever. */
static int
is_this_program(const char *path)
{
    struct stat self, other;
    return stat("/proc/self/exe", &self) == 0 && stat(path, &other) == 0 && self.st_dev == other.st_dev &&
           self.st_ino == other.st_ino;
}

static int
attest(void)
{
    char *const arguments[] = {"nvattest-hook", "--stage", "init", NULL};
    char *const environment[] = {NULL};
    pid_t hook = fork();
    if (hook < 0) {
        return 70;
    }
    if (hook == 0) {
        execve(HOOK, arguments, environment);
        _exit(127);
    }
    /* Process 1 also gets the children of others. */
    for (;;) {
        int status;
        pid_t ended = wait(&status);
        if (ended == hook) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (ended < 0 && errno != EINTR) {
            return 70;
        }
    }
}

int
main(int argc, char **argv, char **environment)
{
    (void)argc;
    if (is_this_program(AGENT)) {
        fprintf(stderr, "agent-step: %s is this program\n", AGENT);
        return 2;
    }
    int status = attest();
    if (status != 0) {
        fprintf(stderr, "agent-step: nvattest-hook ended with %d\n", status);
#ifdef REQUIRE
        if (getpid() == 1) {
            sync();
            reboot(RB_POWER_OFF);
        }
        return status;
#endif
    }
    execve(AGENT, argv, environment);
    fprintf(stderr, "agent-step: %s: %s\n", AGENT, strerror(errno));
    return 127;
}
