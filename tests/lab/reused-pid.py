"""What a power cut can leave: the process that OpenClaw notes as its last one has, by its number, become
somebody else's. Its argument is that number; OpenClaw must not run."""
import glob, json, re, sqlite3, sys

pid = int(sys.argv[1])
state = "/var/lib/openclaw/.openclaw"

locks = glob.glob(f"{state}/tmp/openclaw-*/gateway.*.lock")
for lock in locks:
    with open(lock, "r+", newline="") as file:
        text = re.sub(r'"pid": \d+', f'"pid": {pid}', file.read())
        file.seek(0)
        file.write(text)
        file.truncate()

leases = 0
for database in glob.glob(f"{state}/**/*.sqlite", recursive=True):
    with sqlite3.connect(database) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'state_leases'").fetchone():
            continue
        for row, payload in connection.execute("SELECT rowid, payload_json FROM state_leases").fetchall():
            lease = json.loads(payload or "{}")
            if "port" not in lease:
                continue
            lease["owner"]["pid"] = pid
            update = "UPDATE state_leases SET payload_json = ? WHERE rowid = ?"
            connection.execute(update, (json.dumps(lease), row))
            leases += 1

assert locks and leases == 1, (locks, leases)
