package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/vault/audit"
)

type auditFetch struct {
	URL string `arg:"" name:"url" help:"The vault's own address, that of the second route, such as https://vault.example:8445."`
	Dir string `arg:"" name:"dir" help:"Folder that the log is mirrored into. What is there already is not fetched again."`
	As  string `required:"" help:"The profile of the auditor: an identity that the vault's configuration lists." placeholder:"PROFILE"`
}

// fetched is the result of a fetch.
type fetched struct {
	Vault policies.VaultID `json:"vault"`
	Size  uint64           `json:"size"`
	Root  policies.Hash    `json:"root"`
	Older bool             `json:"older,omitzero"` // some of it was there before, and was not looked at again
}

func (c *auditFetch) Run(s *session) error {
	s.Profile, s.VaultURL = c.As, c.URL
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		document, err := r.Vault(s.ctx) // the one that the profile's join link pinned
		if err != nil {
			return err
		}
		source := vaultLog{r}
		raw, err := source.Vault(s.ctx)
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("this vault does not publish its key-use log, or has not begun to; its operator sets publish.dir in its configuration")
		}
		if err != nil {
			return fmt.Errorf("fetching the vault document: %w", err)
		}
		if beside, err := audit.ParseDocument(raw); err != nil {
			return err
		} else if n := r.Network(); beside.Vault != n.Vault || policies.HashKey(beside.CeremonyKey) != n.Ceremony {
			return fmt.Errorf("%w: the log is of another vault than the profile's", policies.ErrPin)
		}
		log, err := audit.Open(s.ctx, source, document)
		if err != nil {
			return s.damaged(err)
		}
		there, _ := os.ReadDir(c.Dir) // what is wrong with the folder Mirror says
		older := len(there) > 0
		stop := s.progress(log)
		err = log.Mirror(s.ctx, c.Dir, raw, r.QueryLog)
		stop()
		if err != nil {
			return s.damaged(err)
		}
		s.print(fetched{document.Vault, log.Checkpoint.Size, log.Checkpoint.Root, older}, func(w io.Writer) {
			if older {
				fmt.Fprintf(w, "%s reaches to all %d entries that the token signed. What was not there yet was fetched and verified; `sallyport audit verify` verifies all of it.\nroot  %s\n", c.Dir, log.Checkpoint.Size, log.Checkpoint.Root)
				return
			}
			fmt.Fprintf(w, "%s has all %d entries that the token signed, and what lies beside them.\nroot  %s\n", c.Dir, log.Checkpoint.Size, log.Checkpoint.Root)
		})
		return nil
	})
}

// vaultLog is what a vault's own door gives of its log to anybody. Entries and bodies are had by queries.
type vaultLog struct{ *client.Reader }

func (v vaultLog) Checkpoint(ctx context.Context) ([]byte, error) {
	return v.LogFile(ctx, "checkpoint")
}
func (v vaultLog) Vault(ctx context.Context) ([]byte, error) { return v.LogFile(ctx, "vault") }
func (v vaultLog) Witnessed(ctx context.Context, n int64) ([]byte, error) {
	return v.LogFile(ctx, audit.WitnessedPath(n))
}
func (v vaultLog) Tile(ctx context.Context, level int, n int64, width int) ([]byte, error) {
	return v.LogFile(ctx, audit.TilePath(level, n, width))
}
func (v vaultLog) Entries(ctx context.Context, n int64, width int) ([]byte, error) {
	return v.LogFile(ctx, audit.EntriesPath(n, width))
}
func (v vaultLog) Bodies(ctx context.Context, n int64, width int) ([]byte, error) {
	return v.LogFile(ctx, audit.BodiesPath(n, width))
}

// placed is a published log in a folder, or behind a URL, with the vault document beside it.
type placed interface {
	audit.Source
	Vault(ctx context.Context) ([]byte, error)
}

// place is where a log lies that is named by a folder or a URL. What a web server gives of a published log is public and verified, so any TLS will do.
func (s *session) place(name string) (placed, error) {
	if !strings.HasPrefix(name, "https://") {
		return audit.Folder(name), nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: no certificate in %s", errUsage, s.CA)
		}
	}
	return &audit.URL{Prefix: name, Client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
	}}}, nil
}
