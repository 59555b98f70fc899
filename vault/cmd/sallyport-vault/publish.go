package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

// publication says where the key-use log is published, and how often it is looked whether it grew.
type publication struct {
	Dir      string        `koanf:"dir"`
	Interval time.Duration `koanf:"interval"`
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
	publisher, err := tiles.New(tiles.Config{
		Dir: cfg.Publish.Dir, Log: journal, Document: doc, Envelope: device.Document().Raw, Host: host, Reserve: cfg.Reserve, Logger: log,
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
		h.Publication = &api.Publication{Size: uint64(s.Size), Failed: s.Err != nil}
		if !s.At.IsZero() {
			h.Publication.At = s.At.Unix()
		}
	}
	return h
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
