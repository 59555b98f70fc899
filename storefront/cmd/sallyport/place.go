package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// syncedMarks are the files and folders by which a service that copies folders to other computers marks what it copies, and the names that its folder has
// at home. Names alone are a guess; so a person who means it may go on.
var syncedMarks = []struct {
	what  string
	files []string // in the folder or above it
	names []string // of the folder or one above it
}{
	{"Dropbox", []string{".dropbox", ".dropbox.cache"}, []string{"Dropbox"}},
	{"Nextcloud", []string{".nextcloudsync.log", ".sync_*.db"}, []string{"Nextcloud", "ownCloud"}},
	{"Syncthing", []string{".stfolder"}, nil},
	{"OneDrive", []string{".849C9593-D756-4E56-8D6E-42412F2A707B"}, []string{"OneDrive"}},
	{"iCloud", nil, []string{"Mobile Documents", "iCloudDrive"}},
	{"Google Drive", []string{".tmp.drivedownload"}, []string{"Google Drive", "GoogleDrive"}},
	{"Seafile", []string{".seafile-data"}, []string{"Seafile"}},
	{"Git", []string{".git"}, nil},
}

// synced says which service seems to copy a folder, or "".
func synced(dir string) (string, error) {
	way, err := onTheWay(dir)
	if err != nil {
		return "", err
	}
	for _, at := range way {
		for _, m := range syncedMarks {
			for _, name := range m.names {
				if filepath.Base(at) == name {
					return m.what, nil
				}
			}
			for _, pattern := range m.files {
				if found, err := filepath.Glob(filepath.Join(escapeGlob(at), pattern)); err == nil && len(found) > 0 {
					return m.what, nil
				}
			}
		}
	}
	return "", nil
}

// onTheWay are the folders and links that the system goes through on the way to a folder, with it: each can lead elsewhere. Of what does not exist the names count.
func onTheWay(dir string) ([]string, error) {
	way := []string{"/"}
	if !filepath.IsAbs(dir) {
		here, err := os.Getwd() // by the name that its user sees, if that is true
		if err != nil {
			return nil, err
		}
		dir = here + "/" + dir
	}
	at, links := "/", 0
	for rest := strings.Split(dir, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		way = append(way, next)
		target, err := os.Readlink(next)
		if err != nil { // no link, or not there
			at = next
			continue
		}
		if links++; links > 255 {
			return nil, &fs.PathError{Op: "readlink", Path: next, Err: unix.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return way, nil
}

// escapeGlob makes a folder's name mean itself in a pattern.
func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

// shared reports whether others on this computer can change what is at a path: some folder on the way to it is another user's, or is open for others to write
// and not sticky. Nobody is kept from a folder below by its own mode if they can put another one in its place.
func shared(dir string) (bool, error) {
	way, err := onTheWay(dir)
	if err != nil {
		return false, err
	}
	for _, at := range way {
		var st, link unix.Stat_t
		err := errors.Join(unix.Lstat(at, &link), unix.Stat(at, &st))
		switch {
		case errors.Is(err, fs.ErrNotExist): // it will be made, for its user alone
		case err != nil:
			return false, &fs.PathError{Op: "stat", Path: at, Err: err}
		case others(st.Uid) || others(link.Uid):
			return true, nil
		case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
			return true, nil
		}
	}
	return false, nil
}

// others reports whether something belongs to another user, who is not root.
func others(uid uint32) bool { return uid != 0 && int(uid) != os.Geteuid() }

// fit refuses a place for a person's profile where others could get at it, and asks about one that seems to be copied elsewhere.
func (s *session) fit(dir string, yes bool) error {
	open, err := shared(dir)
	if err != nil {
		return err
	}
	if open {
		return s.adding(errUnsure, "place.shared", "dir", dir)
	}
	what, err := synced(dir)
	if err != nil {
		return err
	}
	if what != "" && !yes {
		return s.adding(errUnsure, "place.synced", "dir", dir, "what", what)
	}
	return nil
}

// fitFile asks about a place for a file with a person's secrets or data, where others could get at it.
func (s *session) fitFile(file string, yes bool) error {
	if file == "" || yes {
		return nil
	}
	folder, _ := filepath.Split(file) // as the system goes there, which is not how names are cleaned
	open, err := shared(folder)
	if err != nil {
		return err
	}
	if open {
		return s.sure("place.file.shared", "file", file)
	}
	what, err := synced(folder)
	if err != nil {
		return err
	}
	if what != "" {
		return s.sure("place.file.synced", "file", file, "what", what)
	}
	return nil
}

// sameDisk reports whether a new file would lie on the disk of a folder, as far as one can tell.
func sameDisk(file, dir string) bool {
	var a, b unix.Stat_t
	return unix.Stat(filepath.Dir(file), &a) == nil && unix.Stat(dir, &b) == nil && a.Dev == b.Dev
}
