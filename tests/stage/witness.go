package stage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Witness is a sallyport-witness as a process of its own.
type Witness struct {
	Daemon
	Key     string // its ML-DSA-44 verifier key
	Ed25519 string // and the Ed25519 one
	State   string // its two folders
	Seen    string
}

// NewWitness makes a witness in a folder and starts it. logs are its [[log]] tables.
func NewWitness(ctx context.Context, bin Binaries, dir, name, logs string) (*Witness, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	w := &Witness{State: path("state"), Seen: path("seen")}
	w.Daemon = Daemon{Name: "witness", Log: path("witness.log"), command: []string{bin.Witness}, config: path("witness.toml"), ready: path("ready.json")}
	config := fmt.Sprintf("key = %q\nstate = %q\nseen = %q\nready_file = %q\nlisten = \"127.0.0.1:0\"\nper_second = 10000.0\nburst = 10000\n%s",
		path("key"), w.State, w.Seen, w.ready, logs)
	if err := os.WriteFile(w.config, []byte(config), 0o600); err != nil {
		return nil, err
	}
	r, err := run(ctx, nil, "", bin.Witness, "init", "--config", w.config, "--name", name)
	if err != nil || r.Code != 0 {
		return nil, fmt.Errorf("making a witness: %w\n%s", err, r.Stderr)
	}
	keys := strings.Fields(r.Stdout)
	if len(keys) != 2 {
		return nil, fmt.Errorf("a witness prints its two keys, this one %q", r.Stdout)
	}
	w.Key, w.Ed25519 = keys[0], keys[1]
	return w, w.Start(ctx)
}

// URL is where the witness listens since its last start.
func (w *Witness) URL() (string, error) {
	addresses, err := w.Addresses()
	return "http://" + addresses["witness"], err
}

// Witnesses is the [[log]] table of the stage's vault.
func (s *Stage) Witnesses() string {
	return fmt.Sprintf("[[log]]\nvault = %q\njoin = %q\n", s.path("ceremony", "vault.json"), s.join)
}
