/* The fleet verbs: their options and what --help says. */
#include "coordinator/cli/cli_fleet.h"
#include "coordinator/cli/fleet_run.h"

#define JSON_OPT(T)                                                                                \
    {                                                                                              \
        .name = "json", .help = "one JSON document on stdout", .kind = OPT_FLAG,                   \
        .off = offsetof(T, json)                                                                   \
    }
#define FORCE_OPT(T)                                                                               \
    {                                                                                              \
        .name = "force", .help = "replace an existing file", .kind = OPT_FLAG,                     \
        .off = offsetof(T, force)                                                                  \
    }

static const struct opt sweep_plan_opts[] = { JSON_OPT(struct sweep_opt),
                                              CLIENT_OPTS(struct sweep_opt, fleet),
                                              { 0 } };

#define REQUEST_OPT                                                                                \
    {                                                                                              \
        .name = "request-id", .arg = "S",                                                          \
        .help = "the same S gives the same sweep, so that a script can repeat itself",             \
        .kind = OPT_STR, .off = offsetof(struct sweep_opt, request_id)                             \
    }
static const struct opt sweep_submit_opts[] = {
    REQUEST_OPT, JSON_OPT(struct sweep_opt), CLIENT_OPTS(struct sweep_opt, fleet), { 0 }
};
static const struct opt sweep_run_opts[] = {
    { .name = "csv",
      .arg = "FILE",
      .help = "write the results here, as `results query --csv` gives them; - = stdout",
      .kind = OPT_STR,
      .off = offsetof(struct sweep_opt, csv) },
    FORCE_OPT(struct sweep_opt),
    REQUEST_OPT,
    JSON_OPT(struct sweep_opt),
    CLIENT_OPTS(struct sweep_opt, fleet),
    { 0 },
};
static const struct opt sweep_wait_opts[] = {
    { .name = "timeout",
      .arg = "T",
      .help = "give up after this time (exit 1); the sweep goes on",
      .kind = OPT_MS,
      .off = offsetof(struct sweep_opt, timeout_ms) },
    JSON_OPT(struct sweep_opt),
    CLIENT_OPTS(struct sweep_opt, fleet),
    { 0 },
};

#define SELECT_OPTS                                                                                \
    { .name = "sweep",                                                                             \
      .arg = "ID|NAME",                                                                            \
      .help = "only this sweep: id, prefix of 8 digits or more, name, or 'last'",                  \
      .kind = OPT_MULTI,                                                                           \
      .off = offsetof(struct results_opt, sweep) },                                                \
        { .name = "where",                                                                         \
          .arg = "COL=VALUE",                                                                      \
          .help = "only rows with this value, written as in SWEEP.ini",                            \
          .kind = OPT_MULTI,                                                                       \
          .off = offsetof(struct results_opt, where) },                                            \
    {                                                                                              \
        .name = "data", .arg = "DIR",                                                              \
        .help = "read this coordinator's store directly, without one running", .kind = OPT_STR,    \
        .off = offsetof(struct results_opt, data)                                                  \
    }

static const struct opt results_query_opts[] = {
    SELECT_OPTS,
    { .name = "sql",
      .arg = "SELECT",
      .help = "one SELECT over the views results, sweeps, attempts, agents, artefacts",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, sql) },
    { .name = "csv",
      .help = "CSV on stdout",
      .kind = OPT_FLAG,
      .off = offsetof(struct results_opt, csv) },
    JSON_OPT(struct results_opt),
    { .name = "provenance",
      .help = "also who computed each row, when, with what",
      .kind = OPT_FLAG,
      .off = offsetof(struct results_opt, provenance) },
    CLIENT_OPTS(struct results_opt, fleet),
    { 0 },
};
static const struct opt results_plot_opts[] = {
    { .name = "x",
      .arg = "COL",
      .help = "column along the bottom",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, x) },
    { .name = "y",
      .arg = "COL",
      .help = "column upwards",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, y) },
    { .name = "series",
      .arg = "COL,...",
      .help = "a line for each value of these, the first gives the colour; 'design' is the preset "
              "(default: the fewest that tell all points apart)",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, series) },
    { .name = "out",
      .letter = 'o',
      .arg = "FILE",
      .help = "F.svg: the picture; F.html: picture, table, provenance",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, out) },
    { .name = "title",
      .arg = "TEXT",
      .help = "heading of the picture",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, title) },
    { .name = "from",
      .arg = "FILE",
      .help = "a results CSV or JSON file instead of a fleet",
      .kind = OPT_STR,
      .off = offsetof(struct results_opt, from) },
    SELECT_OPTS,
    FORCE_OPT(struct results_opt),
    CLIENT_OPTS(struct results_opt, fleet),
    { 0 },
};
static const struct opt ls_opts[] = {
    { .name = "ended",
      .arg = "N",
      .help = "tasks: also the last N attempts that ended (default 20; 0 = none)",
      .kind = OPT_U64,
      .off = offsetof(struct ls_opt, ended),

      .max = 2000 },
    JSON_OPT(struct ls_opt),
    CLIENT_OPTS(struct ls_opt, fleet),
    { 0 },
};
static const struct opt why_opts[] = { JSON_OPT(struct why_opt),
                                       CLIENT_OPTS(struct why_opt, fleet),
                                       { 0 } };
static const struct opt audit_opts[] = {
    { .name = "data",
      .arg = "DIR",
      .help = "read this coordinator's store directly, without one running",
      .kind = OPT_STR,
      .off = offsetof(struct audit_opt, data) },
    JSON_OPT(struct audit_opt),
    CLIENT_OPTS(struct audit_opt, fleet),
    { 0 },
};
static const struct opt control_opts[] = { JSON_OPT(struct control_opt),
                                           CLIENT_OPTS(struct control_opt, fleet),
                                           { 0 } };
static const struct opt retry_opts[] = {
    { .name = "failed",
      .help = "only the failed points of a sweep",
      .kind = OPT_FLAG,
      .off = offsetof(struct control_opt, failed) },
    JSON_OPT(struct control_opt),
    CLIENT_OPTS(struct control_opt, fleet),
    { 0 },
};

static const struct opt exec_opts[] = {
    { .name = "class",
      .arg = "C",
      .help = "only agents with the label class=C",
      .kind = OPT_STR,
      .off = offsetof(struct exec_opt, class) },
    { .name = "host",
      .arg = "N",
      .help = "only this agent",
      .kind = OPT_MULTI,
      .off = offsetof(struct exec_opt, host) },
    { .name = "label",
      .arg = "K=V",
      .help = "only agents with this label",
      .kind = OPT_MULTI,
      .off = offsetof(struct exec_opt, label) },
    { .name = "cores",
      .arg = "N",
      .help = "cores of the agent that count as taken meanwhile; it gets no more where the agent "
              "has control groups for it",
      .kind = OPT_U64,
      .off = offsetof(struct exec_opt, cores),
      .max = 4096 },
    { .name = "memory",
      .arg = "SIZE",
      .help = "memory of the agent that counts as taken meanwhile; likewise, and above it the "
              "command is killed (oom)",
      .kind = OPT_SIZE,
      .off = offsetof(struct exec_opt, memory) },
    { .name = "kvm",
      .help = "only agents with a usable KVM",
      .kind = OPT_FLAG,
      .off = offsetof(struct exec_opt, kvm) },
    { .name = "exclusive",
      .help = "with nothing else of the fleet on the host",
      .kind = OPT_FLAG,
      .off = offsetof(struct exec_opt, exclusive) },
    { .name = "timeout",
      .arg = "T",
      .help = "end the command after this time",
      .kind = OPT_MS,
      .off = offsetof(struct exec_opt, timeout) },
    { .name = "copy",
      .arg = "PATH",
      .help = "bring this file back: relative to the command's folder, or absolute",
      .kind = OPT_MULTI,
      .off = offsetof(struct exec_opt, copy) },
    { .name = "out",
      .letter = 'o',
      .arg = "DIR",
      .help = "files go to DIR/AGENT/NAME (default: the current folder)",
      .kind = OPT_STR,
      .off = offsetof(struct exec_opt, out) },
    FORCE_OPT(struct exec_opt),
    { .name = "request-id",
      .arg = "S",
      .help = "the same S gives the same job: asked again, it is not run again",
      .kind = OPT_STR,
      .off = offsetof(struct exec_opt, request_id) },
    JSON_OPT(struct exec_opt),
    CLIENT_OPTS(struct exec_opt, fleet),
    { 0 },
};
static const struct opt logs_opts[] = {
    { .name = "follow",
      .letter = 'f',
      .help = "go on while the task runs",
      .kind = OPT_FLAG,
      .off = offsetof(struct logs_opt, follow) },
    CLIENT_OPTS(struct logs_opt, fleet),
    { 0 },
};

static const struct opt repro_opts[] = {
    { .name = "data",
      .arg = "DIR",
      .help = "read this coordinator's store directly, without one running",
      .kind = OPT_STR,
      .off = offsetof(struct repro_opt, data) },
    JSON_OPT(struct repro_opt),
    CLIENT_OPTS(struct repro_opt, fleet),
    { 0 },
};
static const struct opt fsck_opts[] = {
    { .name = "data",
      .arg = "DIR",
      .help = "folder of a coordinator or of an agent",
      .kind = OPT_STR,
      .off = offsetof(struct fsck_opt, data) },
    { .name = "repair",
      .help =
          "move damaged artefacts to DIR/damaged, so that they are fetched or built again; of a "
          "damaged store save what can be read",
      .kind = OPT_FLAG,
      .off = offsetof(struct fsck_opt, repair) },
    JSON_OPT(struct fsck_opt),
    { 0 },
};
static const struct opt quickstart_opts[] = {
    { .name = "out",
      .arg = "DIR",
      .help = "folder for results.csv, plot.svg and report.html (made; files are replaced)",
      .kind = OPT_STR,
      .off = offsetof(struct quickstart_opt, out) },
    { .name = "offline",
      .help = "no live collection, nothing fetched: only the logs that come along",
      .kind = OPT_FLAG,
      .off = offsetof(struct quickstart_opt, offline) },
    { .name = "logs",
      .arg = "DIR",
      .help = "folder of the real logs (default: found beside the program or in its source)",
      .kind = OPT_STR,
      .off = offsetof(struct quickstart_opt, logs) },
    { .name = "data",
      .arg = "DIR",
      .help = "folder for the store and the keys",
      .kind = OPT_STR,
      .off = offsetof(struct quickstart_opt, data) },
    JSON_OPT(struct quickstart_opt),
    { 0 },
};

static const struct opt drain_opts[] = {
    { .name = "reason",
      .arg = "TEXT",
      .help = "why, for who looks at it",
      .kind = OPT_STR,
      .off = offsetof(struct control_opt, reason) },
    { .name = "for",
      .arg = "TIME",
      .help = "a maintenance: so long, then they take tasks again (2h, 30m)",
      .kind = OPT_MS,
      .off = offsetof(struct control_opt, time) },
    { .name = "at",
      .arg = "TIME",
      .help = "not now but then, by itself: 2026-11-30T18:00 (this host's time; with Z UTC), +2h",
      .kind = OPT_STR,
      .off = offsetof(struct control_opt, at) },
    JSON_OPT(struct control_opt),
    CLIENT_OPTS(struct control_opt, fleet),
    { 0 },
};

#define CONTROL(word, what, text, more, example, table)                                            \
    {                                                                                              \
        .name = word, .args = what, .summary = text, .details = more, .examples = example,         \
        .opts = table, .opts_size = sizeof(struct control_opt), .min_args = 1, .max_args = -1,     \
        .run = run_control                                                                         \
    }

const struct verb fleet_verbs[] = {
    { .name = "sweep plan",
      .args = "SWEEP.ini",
      .summary = "show what a sweep would run, without running it",
      .details =
          "Expands the file as the fleet would: how many points, which traces, which points no\n"
          "engine can run, and the first ten. Needs no coordinator; when one is named, it also\n"
          "tells how many points have a result already.\n"
          "\n"
          "A sweep is traces x architectures. A minimal file:\n"
          "\n"
          "    [sweep]\n"
          "    name = iotlb\n"
          "    [trace]\n"
          "    logs = logs/*.log.zst\n"
          "    tenants = 4,24,72\n"
          "    [arch]\n"
          "    iotlb_entries = 64..1024:x2\n"
          "    [arch improved]\n"
          "    preset = hypertrio\n"
          "    iotlb_entries = 64..1024:x2\n"
          "\n"
          "With [collect] and run = RUN.ini in it, the fleet collects first, and logs = @collect "
          "of a\n"
          "[trace] takes the logs; the plan says which runs are missing.",
      .examples = "siofleet sweep plan iotlb.ini           # points, traces, first rows\n"
                  "siofleet sweep plan iotlb.ini --json    # the same for a script",
      .opts = sweep_plan_opts,
      .opts_size = sizeof(struct sweep_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_sweep_plan },
    { .name = "sweep submit",
      .args = "SWEEP.ini",
      .summary = "give a sweep to the fleet and print its id",
      .details = "Sends the logs and traces that the coordinator does not have yet, then the "
                 "sweep. The id\n"
                 "is printed once the sweep is durable: it survives a restart of anything.",
      .examples =
          "siofleet sweep submit iotlb.ini                    # prints the id\n"
          "siofleet sweep submit iotlb.ini --request-id mon7  # repeated: the same sweep, not a "
          "second one\n"
          "siofleet sweep wait last && siofleet results query --sweep last --csv > iotlb.csv",
      .opts = sweep_submit_opts,
      .opts_size = sizeof(struct sweep_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_sweep_submit },
    { .name = "sweep run",
      .args = "SWEEP.ini",
      .summary = "submit a sweep, follow it and print its results",
      .details =
          "Progress goes to stderr, the table to stdout. Ctrl-C cancels the sweep (exit 5); rows\n"
          "that are done stay, and are not computed again next time. A failed point gives exit 1.",
      .examples = "siofleet sweep run iotlb.ini                   # progress, then a table\n"
                  "siofleet sweep run iotlb.ini --csv iotlb.csv   # and all columns in a file",
      .opts = sweep_run_opts,
      .opts_size = sizeof(struct sweep_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_sweep_run },
    { .name = "sweep wait",
      .args = "ID",
      .summary = "wait for a sweep to end",
      .details =
          "Exit status: 0 all points done, 1 some failed or the time is over, 5 it was cancelled.\n"
          "Ctrl-C ends the waiting, not the sweep.",
      .examples = "siofleet sweep wait last                     # the newest\n"
                  "siofleet sweep wait 4f1c22aa --timeout 10m   # exit 1 if it takes longer",
      .opts = sweep_wait_opts,
      .opts_size = sizeof(struct sweep_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_sweep_wait },
    { .name = "results query",
      .args = "",
      .summary = "print results: table, CSV or JSON",
      .details = "Rows come in the order in which their sweeps were submitted, then by index. The "
                 "default\n"
                 "columns hold nothing that depends on host, time or attempt: two runs of a sweep "
                 "give the\n"
                 "same bytes. Without an option for the form, a table of the columns that differ.",
      .examples =
          "siofleet results query --sweep last\n"
          "siofleet results query --sweep iotlb --where tenants=72 --csv > t72.csv\n"
          "siofleet results query --sweep last --provenance --csv      # with host, engine, times\n"
          "siofleet results query --sql 'SELECT tenants, max(mbps) FROM results GROUP BY tenants'\n"
          "siofleet results query --data /var/lib/siofleet --csv       # no coordinator needed",
      .opts = results_query_opts,
      .opts_size = sizeof(struct results_opt),
      .min_args = 0,
      .max_args = 0,
      .run = run_results_query },
    { .name = "results plot",
      .args = "",
      .summary = "draw results as an SVG picture or a HTML page",
      .details =
          "The page is one file that loads nothing: picture, table and where the numbers come "
          "from.\n"
          "The x axis is logarithmic when its values span a factor of 8 or more. Points that "
          "share\n"
          "a line and an x are drawn as their mean with a bar from the lowest to the highest.",
      .examples =
          "siofleet results plot --sweep last --x tenants --y util_ppm -o util.svg\n"
          "siofleet results plot --sweep last --x tenants --y mbps --series design,iotlb_entries "
          "-o mbps.html\n"
          "siofleet results plot --from results.csv --x iotlb_entries --y util_ppm -o iotlb.svg",
      .opts = results_plot_opts,
      .opts_size = sizeof(struct results_opt),
      .min_args = 0,
      .max_args = 0,
      .run = run_results_plot },
    { .name = "ls",
      .args = "[sweeps|jobs|tasks|agents|artefacts]",
      .summary = "list what the coordinator knows",
      .details = NULL,
      .examples = "siofleet ls                 # sweeps: state, points done\n"
                  "siofleet ls agents          # hosts, cores, what they run, when last heard of\n"
                  "siofleet ls tasks           # what waits and runs, and the last that ended\n"
                  "siofleet ls tasks --json    # for a script",
      .opts = ls_opts,
      .opts_size = sizeof(struct ls_opt),
      .min_args = 0,
      .max_args = 1,
      .run = run_ls },
    { .name = "why",
      .args = "ID",
      .summary = "say why a sweep, task or agent is as it is",
      .details =
          "ID is a sweep (id, prefix, name or 'last'), a job, the number of a task, or the name of "
          "an\n"
          "agent; agent:NAME is the agent where something else has its name. Says what it\n"
          "waits for, what failed and how often, who ran it, and how each attempt ended, with\n"
          "the last lines it wrote.",
      .examples = "siofleet why last       # the newest sweep: pending, running, failed\n"
                  "siofleet why 41         # a task and all its attempts\n"
                  "siofleet why kvm07      # an agent: drained, lost, what failed on it",
      .opts = why_opts,
      .opts_size = sizeof(struct why_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_why },
    { .name = "audit",
      .args = "SWEEP",
      .summary = "prove from the store that each point has one accepted result",
      .details =
          "Reads every row of the sweep, checks that each point of the recipe has one, that it is\n"
          "the row of that point, and that the counters agree. Lists rows beside the accepted\n"
          "ones: late (of an attempt that was over), duplicate, foreign, differing. Exit 4 when a\n"
          "sweep that is done misses a point, or when a result differs from the accepted one.",
      .examples = "siofleet audit last\n"
                  "siofleet audit last --json | jq .missing\n"
                  "siofleet audit last --data /srv/fleet    # no coordinator needed",
      .opts = audit_opts,
      .opts_size = sizeof(struct audit_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_audit },
    { .name = "repro",
      .args = "ROW",
      .summary = "run a row's point again on this host and compare",
      .details = "ROW is SWEEP:INDEX, or 8 or more digits of a point's id. Fetches the trace that "
                 "the row was\n"
                 "made of, runs the point, and compares every statistic; exit 4 if one differs.",
      .examples = "siofleet repro last:17             # point 17 of the newest sweep\n"
                  "siofleet repro 4f1c22aa            # any row of this point\n"
                  "siofleet repro iotlb:3 --data /srv/fleet",
      .opts = repro_opts,
      .opts_size = sizeof(struct repro_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_repro },
    { .name = "fsck",
      .args = "",
      .summary = "check every stored byte of a coordinator's or agent's folder",
      .details =
          "Hashes every artefact, checks every page of the store and that what it names is there,\n"
          "or an agent's unsent results; says what to do. Works beside a running owner; --repair\n"
          "needs it stopped. Exit 4 if anything stays bad.",
      .examples = "siofleet fsck --data /srv/fleet\n"
                  "siofleet fsck --data /srv/fleet --repair   # then start the coordinator again",
      .opts = fsck_opts,
      .opts_size = sizeof(struct fsck_opt),
      .min_args = 0,
      .max_args = 0,
      .run = run_fsck },
    { .name = "exec",
      .args = "-- CMD ARG...",
      .summary = "run a command on the hosts of the fleet",
      .details =
          "Runs CMD once on each agent that is there and matches, without a shell, in an empty "
          "folder of its\n"
          "own, without a terminal, and ends its whole process tree with it. What it writes comes "
          "back when it\n"
          "has ended: up to 1 MiB of each stream, the first quarter and the newest bytes; what "
          "was left out is\n"
          "said. With several hosts each line begins with its host. Exit status: 0 all done, 1 "
          "some failed\n"
          "(each is named), 5 cancelled: Ctrl-C ends it everywhere. A restart of the coordinator "
          "or of an\n"
          "agent does not disturb it; on a host that is lost it fails and is not repeated.",
      .examples =
          "siofleet exec -- uptime                                  # everywhere\n"
          "siofleet exec --class big -- sh -c 'dmesg | tail -n 3'   # a shell only when asked for\n"
          "siofleet exec --host n1 --copy out.txt -o results -- ./bench -o out.txt",
      .opts = exec_opts,
      .opts_size = sizeof(struct exec_opt),
      .min_args = 1,
      .max_args = -1,
      .stop_at_first = 1,
      .run = run_exec },
    { .name = "logs",
      .args = "ID",
      .summary = "print what a task has written",
      .details = "ID is a task's number (`ls tasks`), or a job of one task. Standard output and "
                 "standard error of the\n"
                 "task come on standard output. A task that is over: what was kept of it, at least "
                 "its last lines if\n"
                 "it failed.",
      .examples = "siofleet logs 41        # so far\n"
                  "siofleet logs 41 -f     # until it ends\n",
      .opts = logs_opts,
      .opts_size = sizeof(struct logs_opt),
      .min_args = 1,
      .max_args = 1,
      .run = run_logs },
    CONTROL("cancel", "ID...", "end sweeps, jobs or tasks",
            "Finished rows stay. Every process of a cancelled task is ended.",
            "siofleet cancel last        # the newest sweep\n"
            "siofleet cancel 4f1c22aa    # any prefix of 8 digits or more",
            control_opts),
    CONTROL("hold", "ID...", "start nothing new of these sweeps or jobs",
            "What runs goes on to its end. `release` lets the sweep go on.", "siofleet hold last",
            control_opts),
    CONTROL("release", "ID...", "let held sweeps and jobs go on", NULL, "siofleet release last",
            control_opts),
    { .name = "priority",
      .args = "N ID...",
      .summary = "change the priority of sweeps or jobs",
      .details = "Higher goes first; equal ones share the fleet. What runs goes on to its end.",
      .examples = "siofleet priority 5 last     # the newest sweep goes before those of less",
      .opts = control_opts,
      .opts_size = sizeof(struct control_opt),
      .min_args = 2,
      .max_args = -1,
      .run = run_priority },
    CONTROL(
        "retry", "ID...", "run failed or cancelled work again",
        "Also lets tasks out of quarantine: those that took three agents with them.",
        "siofleet retry 41                # a task that waits after failures, or in quarantine\n"
        "siofleet retry last --failed     # the failed points of the newest sweep",
        retry_opts),
    CONTROL(
        "drain", "AGENT...", "give these agents nothing new",
        "What they run goes on to its end; then the host can be taken away. `undrain` undoes it, "
        "and the end\n"
        "of a maintenance does by itself. `ls agents` and `why` show the reason and the times. "
        "One\n"
        "that was planned with --at begins by itself, also after a restart of the coordinator. "
        "Until then the\n"
        "agent gets of points only as many as end before, by their measured rate, and a trace, "
        "command or\n"
        "collection only when its time limit ends before; one without a limit counts as 10 "
        "minutes. "
        "What does\n"
        "not fit waits for another agent or for the end of the maintenance. What runs on into it "
        "all the same is\n"
        "not cut off.",
        "siofleet drain kvm07 && siofleet ls agents\n"
        "siofleet drain kvm07 --for 2h --reason 'new disk'    # back by itself\n"
        "siofleet drain kvm07 --at 2026-11-30T18:00 --for 2h  # undrain calls it off",
        drain_opts),
    CONTROL("undrain", "AGENT...", "give these agents work again", NULL, "siofleet undrain kvm07",
            control_opts),
    { .name = "quickstart",
      .args = "",
      .summary = "see it all on this host: real logs, a fleet, a sweep, a picture",
      .details = "Collects the log of a guest with 4 network cards on this host (the first time "
                 "this builds\n"
                 "the patched QEMU: minutes, with progress), starts a coordinator and two agents "
                 "on loopback,\n"
                 "runs a sweep of 48 points over real IOMMU logs and one of 6 over its own, writes "
                 "results.csv,\n"
                 "plot.svg and report.html, and stops everything, also after Ctrl-C. Log and store "
                 "stay under\n"
                 "$XDG_DATA_HOME/siofleet/quickstart: a second run reuses what it knows. Delete "
                 "that folder to\n"
                 "start from nothing.",
      .examples = "siofleet quickstart                 # table, and where the files are\n"
                  "siofleet quickstart --offline       # with the logs that come along: seconds\n"
                  "siofleet quickstart --out ./demo    # files in ./demo",
      .opts = quickstart_opts,
      .opts_size = sizeof(struct quickstart_opt),
      .min_args = 0,
      .max_args = 0,
      .run = run_quickstart },
    { 0 },
};
