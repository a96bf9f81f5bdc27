/* nvattest-hook in a guest: an interpreter that finds its modules beside itself and runs one function.
 *
 * It is a regular file, as a Kata agent wants it, and it needs no shell, no environment, no locale and no second program.
 * The interpreter is isolated: it reads no environment variable, no site folder, no configuration file and no current
 * folder. Modules come from one folder, found from the place of this file, so that an image can be mounted anywhere. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef NVATTEST_HOME
#define NVATTEST_HOME "/usr/lib/nvattest"
#endif
/* From /usr/share/oci/hooks/prestart/ to /usr/lib/nvattest. */
#define NVATTEST_RELATIVE "/../../../../lib/nvattest"
#define NVATTEST_MODULES "/modules"

static int
has_modules(const char *home)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s%s/nvattest/guest/__init__.pyc", home, NVATTEST_MODULES);
    return length > 0 && (size_t)length < sizeof path && access(path, R_OK) == 0;
}

/* The folder with the modules; the fixed one where /proc is not mounted. */
static void
find_home(char home[PATH_MAX], char self[PATH_MAX])
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, PATH_MAX - 1);
    if (length > 0 && length + sizeof NVATTEST_RELATIVE < PATH_MAX) {
        self[length] = '\0';
        memcpy(path, self, (size_t)length + 1);
        char *end = strrchr(path, '/');
        if (end != NULL) {
            memcpy(end, NVATTEST_RELATIVE, sizeof NVATTEST_RELATIVE);
            if (realpath(path, home) != NULL && has_modules(home)) {
                return;
            }
        }
    }
    else {
        strcpy(self, "/usr/share/oci/hooks/prestart/nvattest-hook");
    }
    strcpy(home, NVATTEST_HOME);
}

static PyStatus
configure(PyConfig *config, int argc, char **argv)
{
    char home[PATH_MAX], self[PATH_MAX], modules[PATH_MAX + sizeof NVATTEST_MODULES];
    find_home(home, self);
    snprintf(modules, sizeof modules, "%s%s", home, NVATTEST_MODULES);

    config->site_import = 0;
    config->write_bytecode = 0;
    config->pathconfig_warnings = 0;
    /* A reader of our messages that went away must not end the run: SIGPIPE is ignored. */
    config->install_signal_handlers = 1;
    config->module_search_paths_set = 1;
    config->parse_argv = 0;

    PyStatus status;
    wchar_t *wide = Py_DecodeLocale(modules, NULL);
    if (wide == NULL) {
        return PyStatus_NoMemory();
    }
    status = PyWideStringList_Append(&config->module_search_paths, wide);
    PyMem_RawFree(wide);
    /* Warnings of libraries would reach the host's journal and help nobody there. */
    if (!PyStatus_Exception(status)) {
        status = PyWideStringList_Append(&config->warnoptions, L"ignore");
    }
    /* What is set here is not searched for in the file system. */
    struct { wchar_t **field; const char *value; } places[] = {
        {&config->program_name, self}, {&config->executable, self}, {&config->base_executable, self},
        {&config->home, home}, {&config->prefix, home}, {&config->base_prefix, home},
        {&config->exec_prefix, home}, {&config->base_exec_prefix, home},
        {&config->platlibdir, "lib"},
#if PY_VERSION_HEX >= 0x030B0000
        {&config->stdlib_dir, modules},
#endif
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0] && !PyStatus_Exception(status); i++) {
        status = PyConfig_SetBytesString(config, places[i].field, places[i].value);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesArgv(config, argc, argv);
    }
    return status;
}

int
main(int argc, char **argv)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1; /* an empty environment has no locale */
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    status = configure(&config, argc, argv);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
    /* main() ends the process itself. Whatever comes back here is a failure, and the GPUs were not set ready. */
    PyRun_SimpleString("from nvattest.guest import main\nmain()\n");
    return 70;
}
