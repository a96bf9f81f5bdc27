/* In the guest: carries the simulated driver's abstract socket to a TCP port of the host.

   relay NAME ADDRESS PORT

   Each connection is one call of the driver library. Two processes carry it, one for each direction, so a call that
   the driver never answers blocks no other one. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void carry(int from, int to)
{
    char data[65536];
    ssize_t count;

    while ((count = read(from, data, sizeof data)) > 0)
        for (ssize_t done = 0, step; done < count; done += step)
            if ((step = write(to, data + done, (size_t)(count - done))) <= 0)
                return;
    shutdown(to, SHUT_WR);
}

static int connect_host(const char *address, const char *port)
{
    struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int line = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (line < 0 || inet_pton(AF_INET, address, &host.sin_addr) != 1)
        return -1;
    setsockopt(line, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connect(line, (struct sockaddr *)&host, sizeof host) == 0 ? line : -1;
}

int main(int argc, char **argv)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (argc != 4 || listener < 0 || strlen(argv[1]) + 1 > sizeof name.sun_path)
        return 2;
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    memcpy(name.sun_path + 1, argv[1], strlen(argv[1]));
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[1]));
    if (bind(listener, (struct sockaddr *)&name, length) != 0 || listen(listener, 128) != 0) {
        perror("relay");
        return 1;
    }
    if (fork() != 0)
        return 0; /* it listens: whoever waits for this process may go on */
    setsid();
    for (;;) {
        int call = accept(listener, NULL, NULL);
        if (call < 0)
            continue;
        if (fork() == 0) {
            int line = connect_host(argv[2], argv[3]);
            if (line < 0)
                _exit(1);
            pid_t sender = fork();
            if (sender == 0) {
                carry(call, line);
                _exit(0);
            }
            carry(line, call);
            kill(sender, SIGKILL);
            _exit(0);
        }
        close(call);
    }
}
