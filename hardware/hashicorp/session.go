package hashicorp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/vault/api"

	"github.com/sallyport/sallyport/policies/redact"
)

// Pauses between tries at a server that is away.
const (
	firstPause = 500 * time.Millisecond
	startPause = 8 * time.Second // the longest while Open waits
	keepPause  = time.Minute     // the longest while Keep does
	// closeTime is what giving the login back may take: whoever stops the program waits for it.
	closeTime = 2 * time.Second
)

// A Session is a login. Its methods are for one goroutine at a time.
type Session struct {
	redact.Redacted

	config Config
	client *api.Client
	log    *slog.Logger

	// secretID is kept for logging in again; nil with a certificate.
	secretID []byte
	uses     int // how many logins the secret id is good for; 0: any number

	lease api.SecretAuth // of the present login
}

// Open logs in. It waits for a server that is away as long as the configuration's patience lasts.
func Open(ctx context.Context, c Config, log *slog.Logger) (*Session, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Session{config: c, log: log}
	var noted sync.Once
	client, err := c.client(func(t tls.ConnectionState) {
		if t.CurveID != tls.X25519MLKEM768 {
			noted.Do(func() {
				log.Warn("the link to HashiCorp Vault is not post-quantum: who records it may read the PIN later", "key_exchange", t.CurveID.String())
			})
		}
	})
	if err != nil {
		return nil, err
	}
	s.client = client
	if c.Auth == AppRole {
		wrapping, err := c.WrappedSecretID()
		if err != nil {
			return nil, fmt.Errorf("reading the wrapped secret id: %w", err)
		}
		err = s.unwrap(ctx, wrapping)
		clear(wrapping)
		if err != nil {
			return nil, err
		}
	}
	if err := s.patiently(ctx, s.login); err != nil {
		clear(s.secretID)
		return nil, err
	}
	log.Info("logged in at HashiCorp Vault", "auth", string(c.Auth), "lease_seconds", s.lease.LeaseDuration, "renewable", s.lease.Renewable)
	if s.uses == 1 {
		log.Warn("the secret id was good for one login: when this login ends, another cannot be made until the next start with a new one")
	}
	return s, nil
}

// patiently repeats f while the server is away and there is patience.
func (s *Session) patiently(ctx context.Context, f func(context.Context) error) error {
	deadline := time.Now().Add(s.config.Patience)
	for pause := firstPause; ; pause = min(2*pause, startPause) {
		err := f(ctx)
		if !errors.Is(err, ErrAway) || time.Now().Add(pause).After(deadline) {
			return err
		}
		s.log.Warn("HashiCorp Vault is away: trying again", "pause", pause.String(), "until", deadline.UTC().Format(time.RFC3339), "error", err.Error())
		if !sleep(ctx, pause) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// unwrap takes the secret id out of its wrapping, if the role's own path made it.
func (s *Session) unwrap(ctx context.Context, wrapping []byte) error {
	want := path.Join("auth", s.config.authMount(), "role", s.config.Role, "secret-id")
	if err := s.patiently(ctx, func(ctx context.Context) error { return s.lookUp(ctx, wrapping, want) }); err != nil {
		return s.alarm(err, false)
	}
	inDoubt := false // whether an earlier try may have reached the server
	err := s.patiently(ctx, func(ctx context.Context) error {
		err := s.take(ctx, wrapping)
		inDoubt = inDoubt || errors.Is(err, ErrAway)
		return err
	})
	if err != nil {
		return s.alarm(err, inDoubt)
	}
	if s.config.Unwrapped != nil {
		s.config.Unwrapped()
	}
	return nil
}

// alarm makes noise about a wrapped secret id that somebody else may have.
func (s *Session) alarm(err error, inDoubt bool) error {
	if errors.Is(err, ErrWrapped) {
		s.log.Error("ALARM: the wrapped secret id was used already, has expired, or is not the role's. Unless it is known why, somebody else may have taken "+
			"the secret id: destroy the role's secret ids (by accessor), look into HashiCorp Vault's audit log, and deliver a new one",
			"role", s.config.Role, "answer_lost_before", inDoubt, "error", err.Error())
	}
	return err
}

// lookUp asks which path made the wrapping token. It does not use the token up.
func (s *Session) lookUp(ctx context.Context, wrapping []byte, want string) error {
	const op, at = "looking at the wrapped secret id", "sys/wrapping/lookup"
	body, err := object([]byte("token"), wrapping)
	if err != nil {
		return err
	}
	defer clear(body)
	a, fail := s.write(ctx, op, at, body, ErrWrapped, wrapping)
	if fail != nil {
		return fail
	}
	defer a.Zero()
	var made string
	if err := a.public(&made, "data", "creation_path"); err != nil {
		return &Error{Op: op, Path: at, Kind: err}
	}
	if made != want {
		return &Error{Op: op, Path: at, Kind: ErrWrapped, Cause: fmt.Errorf("it was made by %q, not by %q", made, want)}
	}
	return nil
}

// take unwraps. The wrapping token is used up when the server gets to it, whether or not its answer comes back.
func (s *Session) take(ctx context.Context, wrapping []byte) error {
	const op, at = "unwrapping the secret id", "sys/wrapping/unwrap"
	s.client.SetToken(string(wrapping)) // the API takes a string
	defer s.client.ClearToken()
	a, fail := s.write(ctx, op, at, nil, ErrWrapped, wrapping)
	if fail != nil {
		return fail
	}
	defer a.Zero()
	id, err := a.secret("data", "secret_id")
	if err != nil {
		return &Error{Op: op, Path: at, Kind: ErrAnswer, Cause: err}
	}
	s.secretID = id
	if err := a.public(&s.uses, "data", "secret_id_num_uses"); err != nil {
		return &Error{Op: op, Path: at, Kind: err}
	}
	return nil
}

// login makes a new login of the client.
func (s *Session) login(ctx context.Context) error {
	const op = "logging in"
	at := path.Join("auth", s.config.authMount(), "login")
	body, err := s.credentials()
	if err != nil {
		return err
	}
	defer clear(body)
	// No token goes with it: one that has ended would be refused before the login is looked at.
	s.client.ClearToken()
	a, fail := s.write(ctx, op, at, body, ErrLogin, s.secretID)
	if fail != nil {
		return fail
	}
	defer a.Zero()
	var lease api.SecretAuth
	if err := a.public(&lease.LeaseDuration, "auth", "lease_duration"); err != nil {
		return &Error{Op: op, Path: at, Kind: err}
	}
	if err := a.public(&lease.Renewable, "auth", "renewable"); err != nil {
		return &Error{Op: op, Path: at, Kind: err}
	}
	token, err := a.secret("auth", "client_token")
	if err != nil {
		return &Error{Op: op, Path: at, Kind: ErrAnswer, Cause: err}
	}
	lease.ClientToken = string(token) // the API takes a string
	clear(token)
	s.client.SetToken(lease.ClientToken)
	s.lease = lease
	return nil
}

// credentials are the body of a login.
func (s *Session) credentials() ([]byte, error) {
	switch {
	case s.config.Auth == AppRole:
		return object([]byte("role_id"), []byte(s.config.RoleID), []byte("secret_id"), s.secretID)
	case s.config.Role != "":
		return object([]byte("name"), []byte(s.config.Role))
	}
	return object()
}

// write sends a request and reads the whole answer, which the caller zeroes.
func (s *Session) write(ctx context.Context, op, at string, body []byte, refused error, secrets ...[]byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	r, err := s.client.Logical().WriteRawWithContext(ctx, at, body)
	if err != nil {
		return nil, fault(op, at, err, refused, secrets...)
	}
	return finish(op, at, r)
}

func finish(op, at string, r *api.Response) (answer, error) {
	a, err := readAnswer(r)
	if err != nil {
		return nil, &Error{Op: op, Path: at, Status: r.StatusCode, Kind: err}
	}
	if r.StatusCode >= 300 || !jsontext.Value(a).IsValid() { // a redirection is no error to the API
		a.Zero()
		return nil, &Error{Op: op, Path: at, Status: r.StatusCode, Kind: ErrAnswer}
	}
	return a, nil
}

// PIN reads the PIN. The caller zeroes it.
func (s *Session) PIN(ctx context.Context) ([]byte, error) {
	const op = "reading the PIN"
	at := path.Join(s.config.Mount, "data", s.config.Path)
	var query map[string][]string
	if s.config.Version > 0 {
		query = map[string][]string{"version": {strconv.Itoa(s.config.Version)}}
	}
	var pin []byte
	err := s.patiently(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
		defer cancel()
		r, err := s.client.Logical().ReadRawWithDataWithContext(ctx, at, query)
		if err != nil {
			return fault(op, at, err, ErrDenied)
		}
		a, err := finish(op, at, r)
		if err != nil {
			return err
		}
		defer a.Zero()
		if pin, err = a.secret("data", "data", s.config.Field); err != nil {
			return &Error{Op: op, Path: at, Kind: err}
		}
		var version int
		if err := a.public(&version, "data", "metadata", "version"); err == nil {
			s.log.Info("read the PIN from HashiCorp Vault", "path", at, "version", version)
		}
		return nil
	})
	return pin, err
}

// Keep holds the login until ctx ends. It returns before that only if the login ended and another was refused, which it logs: the
// program keeps serving, but its next start needs somebody's help.
func (s *Session) Keep(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		cause := "it could be renewed no longer"
		if err != nil {
			cause = err.Error()
		}
		s.log.Warn("the login at HashiCorp Vault has come to its end; logging in again", "cause", cause)
		if !s.again(ctx) {
			return
		}
	}
}

// watch renews the login until it cannot be renewed, or ctx ends.
func (s *Session) watch(ctx context.Context) error {
	if s.lease.LeaseDuration == 0 { // it does not expire
		<-ctx.Done()
		return nil
	}
	lease := s.lease
	watcher, err := s.client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: &api.Secret{Auth: &lease}})
	if err != nil {
		return err
	}
	go watcher.Start()
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.DoneCh():
			return err
		case renewal := <-watcher.RenewCh():
			s.log.Debug("renewed the login at HashiCorp Vault", "lease_seconds", renewal.Secret.Auth.LeaseDuration)
		}
	}
}

// again logs in anew, as long as the server is away, and is false if there is no more to try.
func (s *Session) again(ctx context.Context) bool {
	told := false
	for pause := time.Second; ; pause = min(2*pause, keepPause) {
		// Also before the first try: a role whose logins end at once must not keep two machines busy. With some chance in it, so that
		// many programs do not come back in the same second.
		if !sleep(ctx, pause/2+rand.N(pause/2)) { // #nosec G404 -- spreads retries; nothing secret rests on it
			return false
		}
		err := s.login(ctx)
		switch {
		case err == nil:
			s.log.Info("logged in at HashiCorp Vault again", "lease_seconds", s.lease.LeaseDuration)
			return true
		case ctx.Err() != nil:
			return false
		case errors.Is(err, ErrAway) || errors.Is(err, ErrTLS): // a certificate that is being replaced, say
			if !told {
				told = true
				s.log.Error("HashiCorp Vault is away, and the login there has ended; serving goes on without it", "error", err.Error())
			}
		default:
			s.log.Error("HashiCorp Vault refuses another login. Serving goes on, but the next start needs help: with AppRole, a new wrapped secret id",
				"error", err.Error())
			return false
		}
	}
}

// Close gives the login back, if the server is there, and zeroes the secret id. Keep has returned by then.
func (s *Session) Close() {
	clear(s.secretID)
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := s.client.Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil {
		s.log.Debug("the login at HashiCorp Vault was not given back; it ends by itself", "error", fault("giving the login back", "auth/token/revoke-self", err, ErrDenied).Error())
	}
	s.client.ClearToken()
}
