package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/keylog"
	"github.com/sallyport/sallyport/vault/keylog/tiles"
)

// publication says where the key-use log is published, how often it is looked whether it grew, and who must have cosigned it.
type publication struct {
	Dir       string          `koanf:"dir"`
	Interval  time.Duration   `koanf:"interval"`
	Need      int             `koanf:"need"`
	Witnesses []witnessConfig `koanf:"witnesses"`
}

// witnessConfig is a witness as the vault asks it.
type witnessConfig struct {
	Key            string `koanf:"key"`
	URL            string `koanf:"url"`
	CA             string `koanf:"ca"`
	AllowClassical bool   `koanf:"allow_classical"`
}

// open reads key and authority, and checks the address.
func (w *witnessConfig) open() (one tiles.Witness, err error) {
	if one.Key, err = evidence.ParseCosigner(w.Key); err != nil {
		return one, err
	}
	u, err := url.Parse(w.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return one, fmt.Errorf("witness %s: url is https://HOST:PORT, possibly with a path", one.Key.Name)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return one, fmt.Errorf("witness %s: url is https://, or http:// to an address of loopback", one.Key.Name)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if w.AllowClassical {
		t.CurvePreferences = append(t.CurvePreferences, tls.X25519, tls.CurveP256)
	}
	if w.CA != "" {
		pem, err := os.ReadFile(w.CA)
		if err != nil {
			return one, fmt.Errorf("witness %s: reading its authority: %w", one.Key.Name, err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return one, fmt.Errorf("witness %s: no certificate in %s", one.Key.Name, w.CA)
		}
	}
	one.URL = w.URL
	one.Client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: t, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return one, nil
}

// witnesses are the configured ones.
func (p *publication) witnesses() (out []tiles.Witness, err error) {
	for i := range p.Witnesses {
		one, err := p.Witnesses[i].open()
		if err != nil {
			return nil, fmt.Errorf("publish.witnesses: %w", err)
		}
		out = append(out, one)
	}
	return out, nil
}

// published is the vault with its published log, as the doors see it. Without a publisher nothing is published.
type published struct {
	*vault.Vault
	dir       string
	publisher *tiles.Publisher
}

// publish begins to publish the log. stop ends that and waits for what is under way.
func publish(ctx context.Context, cfg *config, v *vault.Vault, device *hardware.Device, journal *keylog.Log, log *slog.Logger) (p published, stop func(), err error) {
	if cfg.Publish.Dir == "" {
		return published{Vault: v}, func() {}, nil
	}
	doc := device.VaultDocument()
	host, err := evidence.NewCosignerKey(doc.LogHostKey.Name, &device.Secrets().LogHostSeed)
	if err != nil {
		return published{}, nil, fmt.Errorf("the host's log key: %w", err)
	}
	witnesses, err := cfg.Publish.witnesses()
	if err != nil {
		return published{}, nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	publisher, err := tiles.New(tiles.Config{
		Dir: cfg.Publish.Dir, Log: journal, Document: doc, Envelope: device.Document().Raw, Host: host, Reserve: cfg.Reserve, Logger: log,
		Erased: v.Erased, ErasedAccounts: v.ErasedAccounts,
		Witnesses: witnesses, Need: cfg.Publish.Need,
	})
	if err != nil {
		return published{}, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { publisher.Run(ctx, cfg.Publish.Interval) })
	return published{v, cfg.Publish.Dir, publisher}, func() { cancel(); running.Wait() }, nil
}

// Health tells of the publication besides.
func (p published) Health() api.Health {
	h := p.Vault.Health()
	if p.publisher != nil {
		s := p.publisher.Status()
		h.Publication = &api.Publication{Size: uint64(s.Size), Failed: s.Err != nil, Reason: whyNot(s.Err)}
		if !s.At.IsZero() {
			h.Publication.At = s.At.Unix()
		}
		for _, w := range s.Witnesses {
			one := api.Witness{Name: w.Name, Size: uint64(w.Size), Reason: whyNot(w.Err)}
			if !w.At.IsZero() {
				one.At = w.At.Unix()
			}
			h.Publication.Witnesses = append(h.Publication.Witnesses, one)
		}
	}
	return h
}

// whyNot is the reason of a failure in one word: the text of an error is for the vault's own log.
func whyNot(err error) string {
	if err == nil {
		return ""
	}
	for _, r := range []struct {
		err  error
		word string
	}{
		{tiles.ErrWitnesses, "witnesses"}, {tiles.ErrNoSpace, "no_space"}, {tiles.ErrInconsistent, "inconsistent"},
		{tiles.ErrAhead, "ahead"}, {tiles.ErrRefused, "refused"}, {tiles.ErrAnswer, "answer"}, {tiles.ErrAway, "away"},
	} {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "failed"
}

// Published reads a file of the published log. The doors ask for no names but those that anybody may have.
func (p published) Published(name string) ([]byte, error) {
	if p.publisher == nil {
		return nil, policies.CodeNotFound
	}
	content, err := os.ReadFile(filepath.Join(p.dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, policies.CodeNotFound
	}
	return content, err
}
