package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A KeyServer is a sallyport-keyserver as a process of its own, with a token of its own.
type KeyServer struct {
	Daemon
	// LogFolder and State are the two folders of its log.
	LogFolder, State string
}

// KeyServerDoor is the storefront's [introspection] table, for Options.StorefrontConfig of a stage in folder dir, and the address of that door.
func KeyServerDoor(dir string) (config, address string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	ports, err := freePorts(1)
	if err != nil {
		return "", "", err
	}
	path := func(name string) string { return filepath.Join(dir, "tls", name) }
	return fmt.Sprintf("\n[introspection]\nlisten = %q\ncertificate = %q\nkey = %q\nclient = %q\n",
		ports[0], path("storefront.pem"), path("storefront-key.pem"), path("keyserver-client.pem")), ports[0], nil
}

// NewKeyServer makes a key server beside the stage and starts it. introspection is the address of KeyServerDoor; members are top-level ones of its
// configuration, besides.
func (s *Stage) NewKeyServer(ctx context.Context, introspection, members string) (*KeyServer, error) {
	path := func(parts ...string) string { return s.path(append([]string{"keyserver"}, parts...)...) }
	if err := os.MkdirAll(path(), 0o700); err != nil {
		return nil, err
	}
	env := []string{"SOFTHSM2_CONF=" + path("token", "softhsm2.conf")}
	for _, args := range [][]string{
		{"dev-token", path("token")},
		{"init", "--dev", "--yes", "--custody", "resident", "--dir", path("ceremony"), "--storefront", s.StorefrontURL(), "--owners", s.OwnersURL()},
	} {
		if r, err := run(ctx, env, "", s.bin.HSM, args...); err != nil || r.Code != 0 {
			return nil, fmt.Errorf("the key server's token: %w\n%s", errors.Join(err), r.Stderr)
		}
	}
	k := &KeyServer{LogFolder: path("log"), State: path("state")}
	k.Daemon = Daemon{Name: "key server", Log: s.path("keyserver.log"), command: []string{s.bin.KeyServer}, config: path("keyserver.toml"), ready: path("ready.json"), env: env}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`ceremony = %q
vault = %q
pin = %q
dev_mode = true
log = %q
state = %q
listen = %q
certificate = %q
key = %q
ready_file = %q
%s
[storefront]
introspection = %q
ca = %q
certificate = %q
key = %q
`, path("ceremony"), filepath.Join(s.Ceremony(), "vault.json"), "file:"+path("user.pin"), k.LogFolder, k.State, ports[0], s.path("tls", "keyserver.pem"), s.path("tls", "keyserver-key.pem"), k.ready, members,
		"https://"+introspection+"/v1/introspect", s.CA(), s.path("tls", "keyserver-client.pem"), s.path("tls", "keyserver-client-key.pem"))
	if err := os.WriteFile(k.config, []byte(config), 0o600); err != nil {
		return nil, err
	}
	r, err := run(ctx, env, "", s.bin.KeyServer, "init", "--config", k.config)
	if err != nil || r.Code != 0 {
		return nil, fmt.Errorf("creating the key server: %w\n%s", errors.Join(err), r.Stderr)
	}
	return k, k.Start(ctx)
}

// URL is where the key server listens for devices.
func (k *KeyServer) URL() (string, error) {
	addresses, err := k.Addresses()
	return "https://" + addresses["devices"], err
}

// Said is what the key server wrote to its standard error.
func (k *KeyServer) Said() (string, error) {
	text, err := os.ReadFile(k.Log)
	return strings.TrimSpace(string(text)), err
}
