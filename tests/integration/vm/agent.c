/* A stand-in for the Kata agent: finds guest hooks, runs them as one generation of the agent does, starts a workload.

   agent GENERATION HOOKS WORKLOAD

   GENERATION is one of
     3.0    the agent's environment; argv[0] is the path; waits 10 s for the exit status, which decides; never kills
     3.7    no environment; argv[0] is the name; the reaper takes the exit status first; waits 10 s; never kills
     3.32   as 3.7, and a container whose specification has hooks of its own loses the guest's
     4.1    as 3.32; kills a hook that keeps its pipes open for 10 s; logs a lost exit status as a failure

   The pause container comes first (no hooks of its own), then the workload's container (with hooks, as CDI gives them
   to every container with a GPU). Whatever the agent decides is printed as lines that begin with "T agent". As process 1
   it powers the machine off in the end. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_MS = 10000, GRACE_MS = 1000 };

static int generation; /* 300, 307, 332, 401 */

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void log_kernel(const char *path, const char *what)
{
    FILE *kernel = fopen("/dev/kmsg", "w");

    if (kernel != NULL) {
        fprintf(kernel, "<4>kata-agent: hook failed: %s: %s\n", path, what);
        fclose(kernel);
    }
}

/* Read both pipes until they end, and print what came. 0: both ended, -1: time is up. */
static int drain(int out, int err, long until)
{
    struct pollfd pipes[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};

    while (pipes[0].fd >= 0 || pipes[1].fd >= 0) {
        long left = until - now_ms();
        if (left <= 0 || poll(pipes, 2, (int)left) == 0)
            return -1;
        for (int i = 0; i < 2; i++) {
            char text[4096];
            if (pipes[i].fd < 0 || pipes[i].revents == 0)
                continue;
            ssize_t count = read(pipes[i].fd, text, sizeof text);
            if (count <= 0)
                pipes[i].fd = -1;
            else
                fwrite(text, 1, (size_t)count, stdout), fflush(stdout);
        }
    }
    return 0;
}

/* The exit status, or -1 if it is not to be had within this time. */
static int wait_status(pid_t child, long until)
{
    int status;

    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now_ms() >= until)
            return -1;
        usleep(10000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* 0: the container may be created. */
static int run_hook(const char *path, const char *container, const char *kind)
{
    int in[2], out[2], err[2];
    char state[512];
    const char *name = strrchr(path, '/') + 1;
    long start = now_ms();

    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
        return 1;
    pid_t child = fork();
    if (child == 0) {
        char *argv[] = {(char *)(generation == 300 ? path : name), "prestart", NULL}, *none[] = {NULL};
        dup2(in[0], 0), dup2(out[1], 1), dup2(err[1], 2);
        if (chdir("/tmp") == 0)
            generation == 300 ? execv(path, argv) : execve(path, argv, none);
        _exit(127);
    }
    close(in[0]), close(out[1]), close(err[1]);
    int length = snprintf(state, sizeof state,
        "{\"ociVersion\":\"1.2.0\",\"id\":\"%s\",\"status\":\"created\",\"pid\":%d,\"bundle\":\"/tmp\","
        "\"annotations\":{\"io.katacontainers.pkg.oci.container_type\":\"%s\"}}", container, getpid(), kind);
    if (write(in[1], state, (size_t)length) < 0)
        perror("state");
    close(in[1]);

    int late = drain(out[0], err[0], start + LIMIT_MS), status;
    if (generation == 300) {
        status = late ? -1 : wait_status(child, start + LIMIT_MS);
        printf("T agent hook %s status=%d\n", container, status);
        return status;
    }
    if (late && generation >= 401) {
        kill(child, SIGKILL);
        log_kernel(path, "communicate: TimedOut");
    }
    if (!late && wait_status(child, now_ms() + GRACE_MS) == -1)
        kill(child, SIGKILL);
    waitpid(child, NULL, generation >= 401 ? 0 : WNOHANG); /* the reaper has it: whoever waits finds nothing */
    if (!late && generation >= 401)
        log_kernel(path, "no exit code for hook");
    printf("T agent hook %s status=lost%s\n", container, !late ? "" : generation >= 401 ? " killed" : " abandoned");
    return 0;
}

static int create_container(const char *hooks, const char *container, const char *kind, int own_hooks)
{
    char folder[256], path[512];
    struct dirent *entry;
    struct stat facts;

    printf("T agent create %s\n", container);
    if (own_hooks && generation >= 332) {
        printf("T agent dropped the guest's hooks for %s\n", container);
        return 0;
    }
    snprintf(folder, sizeof folder, "%s/prestart", hooks);
    DIR *found = opendir(folder);
    if (found == NULL)
        return 0; /* no folder is no hook, and no word */
    while ((entry = readdir(found)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (lstat(path, &facts) != 0 || !S_ISREG(facts.st_mode) || !(facts.st_mode & 0111))
            continue;
        if (run_hook(path, container, kind) != 0) {
            printf("T agent aborted %s\n", container);
            closedir(found);
            return 1;
        }
    }
    closedir(found);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int number; } known[] = {{"3.0", 300}, {"3.7", 307}, {"3.32", 332}, {"4.1", 401}};

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; argc == 4 && i < sizeof known / sizeof *known; i++)
        if (strcmp(argv[1], known[i].name) == 0)
            generation = known[i].number;
    if (generation == 0)
        return 2;
    printf("T agent %s runs as process %d\n", argv[1], getpid() == 1 ? 1 : 2);
    int failed = create_container(argv[2], "pause", "pod_sandbox", 0);
    if (!failed)
        failed = create_container(argv[2], "workload", "pod_container", 1);
    fflush(stdout);
    if (!failed && system(argv[3]) != 0)
        printf("T agent workload failed\n");
    fflush(stdout);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return failed;
}
