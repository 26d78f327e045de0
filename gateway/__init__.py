"""Upload Gateway: a self-hosted async API gateway whose first job is files.

The rooms, top to bottom; imports only go down (`setup.cfg` holds the contract):

    commands/   one file a verb of the command line
    app         puts ground and doors together into a gateway
    worker      runs handlers only, on any machine
    doors       makes the doors and gives each what it needs
    delivering  who runs the handlers: a runner on the journal, or NATS behind it
    entrance    the road of every request; turns errors into answers
    ground      what every door stands on: directory, plugins, journal
    premises    what exists once however many processes there are: the lock, the key, the port
    supervisor  the processes: started, kept alive, ended together
    link        the line between the supervisor and a process
    uploads/    the door for PUT: admit, receive, commit, answer
    routing/    the door for routes: authorize, check, run scripts, ask upstreams
    downloads/  the door for GET: files handed out, whole, in part, many as one zip
    observe     health, metrics, status
    steering    events, seen and steered over HTTP
    objects/    what object stores tell of, and objects that were to come
    bodies      the bodies of small requests to the gateway itself
    siblings    the other processes of this gateway, asked through their sockets
    handing     hands stored files to other nodes
    fetching    the files that events speak of, here or elsewhere
    shelves     the storage as scripts have it, by path
    distant     a gateway elsewhere that has a file
    distant_shelf  its storage, for a worker
    answers     what clients are answered: JSON, refusals
    origins     lets pages of any origin use signed URLs
    commit/     the promise: group commit, publish, recover, reserve
    events/     the journal, the runner that delivers from it, the relay to NATS
    hooks       fires the events at the handlers of the plugins
    auth        who is asking, and is that enough
    linking     makes signed URLs
    jwt/        who a JSON Web Token of the configured issuer speaks for
    installation  the gateways of one installation, and how they know each other's calls
    plugins/    YAML files -> checked, compiled, one set
    scripting/  all a script can see, and the threads it runs in
    secrets     the keys of !secret values
    initiated   the URLs by which somebody may put an object himself, until they end
    records/    small JSON items that scripts keep: SQLite or PostgreSQL
    storage/    the directory tree and the bodies on their way into it
    settings    flags, environment, file -> one frozen object
    paths, redaction, forwarded, metadata, schedules, signing, model, errors    pure foundations
"""

__version__ = "0.1.0"
